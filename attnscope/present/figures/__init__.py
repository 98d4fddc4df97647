"""Plotly figures from views; the only part of attnscope, with `present.html`, that imports plotly.

Every figure takes `theme` ("light" or "dark") and nothing but views.
"""

from .causal import causal_bars
from .circuit_dissociation import dissociation_bars
from .circuit_faithfulness import faithfulness_curves
from .circuit_graph import circuit_graph_figure
from .circuit_units import block_effects, unit_dots, unit_scatter_figure
from .dormant_heads import dormant_map
from .effects import effect_dots
from .frequency import choice_lines_figure, chunk_lines, chunk_map_figure, overlap_figure
from .head_grid import head_grid_figure
from .profiles import distance_profiles
from .residual import outlier_bars, residual_norm_lines
from .residual_sinks import direct_lines, quantisation_bars, read_scores, rescaling_lines
from .retrieval_curves import ablation_curves, budget_curves, circuit_curves
from .retrieval_heads import head_dots, stability_curve
from .retrieval_needles import needle_heatmap
from .scores import score_heatmap
from .sink_levels import level_lines, level_spans
from .sink_map import sink_map_figure
from .sink_traces import trace_cosine_lines, trace_norm_lines
from .sink_weakening import weakening_lines
from .sink_writes import write_curves, writer_bars

__all__ = [
    "dissociation_bars",
    "faithfulness_curves",
    "circuit_graph_figure",
    "block_effects",
    "unit_dots",
    "unit_scatter_figure",
    "circuit_curves",
    "choice_lines_figure",
    "chunk_lines",
    "chunk_map_figure",
    "overlap_figure",
    "ablation_curves",
    "budget_curves",
    "head_dots",
    "stability_curve",
    "needle_heatmap",
    "dormant_map",
    "trace_cosine_lines",
    "trace_norm_lines",
    "effect_dots",
    "direct_lines",
    "quantisation_bars",
    "read_scores",
    "rescaling_lines",
    "level_lines",
    "level_spans",
    "sink_map_figure",
    "weakening_lines",
    "write_curves",
    "writer_bars",
    "causal_bars",
    "distance_profiles",
    "head_grid_figure",
    "outlier_bars",
    "residual_norm_lines",
    "score_heatmap",
]
