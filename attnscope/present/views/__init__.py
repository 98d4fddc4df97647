"""Views: pure functions from a report (and statistics) to plain frozen data; no plotting library."""

from .causal import Bar, CausalView, causal_views
from .circuit_graph import CircuitGraph, circuit_graphs
from .circuit_missing import circuit_missing
from .circuit_quality import FaithfulnessLine, OverlapRow, QualityRow, faithfulness_lines, overlap_rows, quality_rows
from .circuit_summary import circuit_headline, circuit_sentences
from .circuit_tests import (
    DissociationView,
    TransferRow,
    circuit_lines,
    curve_levels,
    dissociation_views,
    transfer_rows,
)
from .circuit_units import UnitLine, UnitScatter, effect_grids, top_units, unit_lines, unit_scatter
from .decode import DecodeView, decode_view
from .dormant_heads import DormantView, dormant_view
from .effects import Effect
from .frequency import ChunkCurve, ChunkMap, chunk_curves, chunk_grids, chunk_map
from .frequency_choices import (
    ChoiceLine,
    OverlapMatrix,
    choice_lines,
    frequency_headline,
    frequency_sentences,
    overlap_matrix,
)
from .heads import HeadCell, HeadGrid, HeadRow, head_grid, heads_table
from .labels import SPECIFICITY, RankedHead, headline, label_counts, labels_of, top_heads
from .profiles import DistanceProfile, bin_names, distance_profile, labelled_profiles, received_mass
from .provenance import ProvenanceView, RuleRow, provenance_view, rule_rows
from .residual import OutlierRow, ResidualNorms, outlier_rows, residual_norms
from .residual_sinks import LossBar, ResidualSinkView, residual_sink_view
from .retrieval_curves import Compared, ComparedLine, ablation_lines, budget_lines
from .retrieval_heads import HeadLine, StabilityView, head_lines, stability_view, top_lines
from .retrieval_measures import AgreementRow, agreement_rows, retrieval_grids
from .retrieval_missing import retrieval_missing
from .retrieval_needles import NeedleGrid, needle_grid
from .retrieval_summary import retrieval_headline, retrieval_sentences
from .scores import MissingEvidence, ScoreGrid, missing_evidence, score_grid, score_grids
from .sink_heads import WeakeningRow, service_grids, weakening_rows
from .sink_levels import LevelRow, level_rows
from .sink_map import SinkColumn, SinkMap, sink_maps
from .sink_rows import SinkEntry, SinkGroup, sink_entries, sink_groups
from .sink_summary import sink_headline, sink_sentences
from .sink_traces import TraceRow, trace_rows
from .sink_writes import WriterView, WriteView, write_views, writer_views
from .sinks import SinkRate, SinkRow, sink_rates, sink_table
from .summary import Card, summary_cards

__all__ = [
    "CircuitGraph",
    "circuit_graphs",
    "circuit_missing",
    "FaithfulnessLine",
    "OverlapRow",
    "QualityRow",
    "faithfulness_lines",
    "overlap_rows",
    "quality_rows",
    "circuit_headline",
    "circuit_sentences",
    "DissociationView",
    "TransferRow",
    "circuit_lines",
    "curve_levels",
    "dissociation_views",
    "transfer_rows",
    "UnitLine",
    "UnitScatter",
    "effect_grids",
    "top_units",
    "unit_lines",
    "unit_scatter",
    "ChunkCurve",
    "ChunkMap",
    "chunk_curves",
    "chunk_grids",
    "chunk_map",
    "ChoiceLine",
    "OverlapMatrix",
    "choice_lines",
    "frequency_headline",
    "frequency_sentences",
    "overlap_matrix",
    "AgreementRow",
    "agreement_rows",
    "retrieval_grids",
    "Compared",
    "ComparedLine",
    "ablation_lines",
    "budget_lines",
    "HeadLine",
    "StabilityView",
    "head_lines",
    "stability_view",
    "top_lines",
    "NeedleGrid",
    "needle_grid",
    "retrieval_headline",
    "retrieval_missing",
    "retrieval_sentences",
    "DormantView",
    "dormant_view",
    "TraceRow",
    "trace_rows",
    "SinkEntry",
    "SinkGroup",
    "sink_entries",
    "sink_groups",
    "Effect",
    "LossBar",
    "ResidualSinkView",
    "residual_sink_view",
    "WeakeningRow",
    "service_grids",
    "weakening_rows",
    "LevelRow",
    "level_rows",
    "SinkColumn",
    "SinkMap",
    "sink_maps",
    "sink_headline",
    "sink_sentences",
    "WriteView",
    "WriterView",
    "write_views",
    "writer_views",
    "SPECIFICITY",
    "Bar",
    "Card",
    "CausalView",
    "DecodeView",
    "DistanceProfile",
    "HeadCell",
    "HeadGrid",
    "HeadRow",
    "MissingEvidence",
    "OutlierRow",
    "ProvenanceView",
    "RankedHead",
    "ResidualNorms",
    "RuleRow",
    "ScoreGrid",
    "SinkRate",
    "SinkRow",
    "bin_names",
    "causal_views",
    "decode_view",
    "distance_profile",
    "head_grid",
    "headline",
    "heads_table",
    "label_counts",
    "labelled_profiles",
    "labels_of",
    "missing_evidence",
    "outlier_rows",
    "provenance_view",
    "received_mass",
    "residual_norms",
    "rule_rows",
    "score_grid",
    "score_grids",
    "sink_rates",
    "sink_table",
    "summary_cards",
    "top_heads",
]
