"""Edits: one file an intervention; see `_base.Edit` for the two places where one acts."""

from __future__ import annotations

from ..core.registry import Registry

edits = Registry("attnscope.edits", "edit")
