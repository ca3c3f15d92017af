"""What a run will need: memory by part, tokens and FLOPs, from a configuration alone."""
