"""What all structures are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

Struct = TypeVar("Struct", bound="TensorStruct")


@dataclass
class TensorStruct:
    """A dataclass whose tensors move together; a trainer moves it like one tensor."""

    def apply(self: Struct, fn: Callable[[Tensor], Tensor]) -> Struct:
        """A copy with `fn` applied to every tensor, in nested structures too."""

        def mapped(value: Any) -> Any:
            if isinstance(value, Tensor):
                return fn(value)
            if isinstance(value, dict):
                return {key: mapped(entry) for key, entry in value.items()}
            return value.apply(fn) if isinstance(value, TensorStruct) else value

        return dataclasses.replace(self, **{f.name: mapped(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def to(self: Struct, *args: Any, **kwargs: Any) -> Struct:
        """A copy with every tensor moved, as `Tensor.to` would."""
        return self.apply(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self: Struct) -> Struct:
        """A copy in pinned memory, called by a `DataLoader` that pins."""
        return self.apply(Tensor.pin_memory)
