"""Samples of traces: what is kept of them, and how it is shown."""
