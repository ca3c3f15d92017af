"""A training step without a trainer: the method, micro-batches, the window."""

from nrt_lightning.training.method import Method

__all__ = ["Method"]
