"""Frozen references, and the models that score the answers without a trace."""
