"""Planted models: Llama models whose heads do what they do by construction, so that their labels are known."""

from .build import knock_out, plant, save, spec_of
from .labels import expected_labels, supporting_head
from .prompts import needle_prompts, repeat_prompts, text_prompts
from .random_spec import random_spec, with_sinks
from .spec import KINDS, PlantedSink, PlantedSpec
from .vocabulary import build_tokenizer

__all__ = [
    "KINDS",
    "PlantedSink",
    "PlantedSpec",
    "build_tokenizer",
    "expected_labels",
    "knock_out",
    "needle_prompts",
    "plant",
    "random_spec",
    "repeat_prompts",
    "save",
    "spec_of",
    "supporting_head",
    "text_prompts",
    "with_sinks",
]
