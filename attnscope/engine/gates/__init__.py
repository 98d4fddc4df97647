"""Trained gates: which KV heads need the whole context (DuoAttention, LycheeDecode). Weights stay frozen."""
