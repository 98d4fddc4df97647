"""Backends: one file each; all turn a model's attention into AttentionCalls and hand them to a tap."""

from __future__ import annotations

from ..core.registry import Registry

backends = Registry("attnscope.models", "backend", attribute="load")
