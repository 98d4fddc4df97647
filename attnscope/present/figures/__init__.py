"""Plotly figures from views; the only part of attnscope, with `present.html`, that imports plotly.

Every figure takes `theme` ("light" or "dark") and nothing but views.
"""

from .causal import causal_bars
from .head_grid import head_grid_figure
from .profiles import distance_profiles
from .residual import outlier_bars, residual_norm_lines
from .scores import score_heatmap

__all__ = [
    "causal_bars",
    "distance_profiles",
    "head_grid_figure",
    "outlier_bars",
    "residual_norm_lines",
    "score_heatmap",
]
