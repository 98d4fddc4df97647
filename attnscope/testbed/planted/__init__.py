"""Planted models: Llama models whose heads do what they do by construction, so that their labels are known."""

from .build import knock_out, plant, save, spec_of
from .circuit_prompts import reasoning_prompts, recall_prompts
from .circuits import circuit_heads, facts
from .labels import expected_labels, supporting_head
from .mlps import fact_neurons
from .prompts import needle_prompts, repeat_prompts, text_prompts
from .random_spec import random_circuits, random_spec, with_sinks
from .spec import CIRCUIT_KINDS, KINDS, PlantedSink, PlantedSpec
from .vocabulary import build_tokenizer

__all__ = [
    "CIRCUIT_KINDS",
    "KINDS",
    "PlantedSink",
    "PlantedSpec",
    "build_tokenizer",
    "circuit_heads",
    "expected_labels",
    "fact_neurons",
    "facts",
    "knock_out",
    "needle_prompts",
    "plant",
    "random_circuits",
    "random_spec",
    "reasoning_prompts",
    "recall_prompts",
    "repeat_prompts",
    "save",
    "spec_of",
    "supporting_head",
    "text_prompts",
    "with_sinks",
]
