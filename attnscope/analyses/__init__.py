"""Analyses: arrays in, arrays out; no torch, no model, input never changed."""
