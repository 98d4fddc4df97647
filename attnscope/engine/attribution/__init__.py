"""Gradient estimates of what edits would do: cheap screens, to be verified by sweeps."""
