"""Frozen references, and whose confidence without a trace is the baseline."""
