"""Plans a run from its configuration alone: memory by part, tokens, FLOPs and time."""
