"""Sparse decoding: full KV heads keep their whole cache, streaming KV heads keep sink tokens and a recent window."""
