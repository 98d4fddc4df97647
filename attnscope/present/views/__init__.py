"""Views: pure functions from a report (and statistics) to plain frozen data; no plotting library."""

from .causal import Bar, CausalView, causal_views
from .decode import DecodeView, decode_view
from .heads import HeadCell, HeadGrid, HeadRow, head_grid, heads_table
from .labels import SPECIFICITY, RankedHead, headline, label_counts, labels_of, top_heads
from .profiles import DistanceProfile, bin_names, distance_profile, labelled_profiles, received_mass
from .provenance import ProvenanceView, RuleRow, provenance_view, rule_rows
from .residual import OutlierRow, ResidualNorms, outlier_rows, residual_norms
from .scores import MissingEvidence, ScoreGrid, missing_evidence, score_grid, score_grids
from .sinks import SinkRate, SinkRow, sink_rates, sink_table
from .summary import Card, summary_cards

__all__ = [
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
