"""Head-score files that sparse decoders read, one file a format; each holds an object named `FORMAT`.

Nothing here unpickles: files are JSON, YAML (safe loader), TSV or safetensors.
"""

from __future__ import annotations

from ...core.registry import Registry

formats = Registry("attnscope.reports.formats", "format", attribute="FORMAT")
