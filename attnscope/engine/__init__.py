"""The only loops over a model."""
