"""A training step without a trainer: the method, micro-batches, the window."""
