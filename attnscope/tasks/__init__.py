"""Tasks: one file a prompt set; each builds a `datasets.Dataset` with a column `input_ids`."""

from __future__ import annotations

from ..core.registry import Registry

tasks = Registry("attnscope.tasks", "task")
