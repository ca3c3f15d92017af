"""Whether the entropies of a scoring forward have a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

ENTROPY_GRADIENT = ContextVar("entropy_gradient", default=False)  # True: entropies have a gradient


@contextmanager
def entropy_gradient(*, enabled: bool) -> Iterator[None]:
    """A context in which entropies have a gradient, as an entropy term of the loss needs, or have none."""
    token = ENTROPY_GRADIENT.set(enabled)
    try:
        yield
    finally:
        ENTROPY_GRADIENT.reset(token)
