"""Collectors: one file a statistic; see `_base.Collector` for the four functions that each one is made of."""

from __future__ import annotations

from ..core.registry import Registry

collectors = Registry("attnscope.collectors", "collector")
