"""What a step needs with all layers and prompts, from what it needs with a few."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError
from nrt_lightning.tools.planning.fakes import period
from nrt_lightning.tools.planning.miniature import Miniature, Needs

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.tools.planning.sizes import Lengths

FEW = 2  # layers of the smaller of the two miniatures, or more if their types repeat later
SOME = 2  # prompts of the smaller of the two miniatures


def of_all_layers(
    policy: Policy,
    lengths: Lengths,
    precision: str,
    run: Callable[[Miniature], Needs],
    gradients: float = 1.0,
    *,
    by_row: bool = False,
) -> Needs:
    """What a phase needs; extrapolated from miniatures with fewer layers and prompts.

    Args:
        policy: the policy.
        lengths: of the full micro-batch.
        precision: of Lightning's Trainer.
        run: runs the phase.
        gradients: fraction of the gradients on this device.
        by_row: everything that the phase needs is proportional to the prompts.
    """
    layers = policy.config.get_text_config().num_hidden_layers
    few = period(policy.config) * math.ceil(FEW / period(policy.config))
    tried = (few, 2 * few) if layers > 2 * few else (layers,)
    rows = (SOME, 2 * SOME) if lengths.prompts > 2 * SOME and not by_row else (min(lengths.prompts, 2 * SOME),)
    found: dict[tuple[int, int], Needs] = {}
    for count, prompts in product(tried, rows):
        try:
            found[count, prompts] = run(Miniature(policy, lengths, precision, count, prompts, gradients))
        except InputError:
            raise
        except Exception as error:  # models raise many kinds
            kind, why = policy.config.get_text_config().model_type, " ".join(str(error).split())[:200]
            raise InputError(
                f"policy.model {policy.source!r} ({kind}) cannot be planned: its forward pass needs values, of which a "
                f"plan has none. Measure a few steps instead. ({type(error).__name__}: {why})"
            ) from error

    more = lengths.prompts / rows[0] if len(rows) == 1 else 1.0

    def whole(get: Callable[..., dict[str, Any]]) -> dict[str, float]:
        names = dict.fromkeys(name for needs in found.values() for name in get(needs))
        sizes = {}
        for name in names:
            by_layers = [line([(b, get(found[n, b]).get(name, 0)) for b in rows], lengths.prompts) for n in tried]
            sizes[name] = more * line(list(zip(tried, by_layers, strict=True)), layers)
        return {name: size for name, size in sizes.items() if size > 0}

    phases = dict.fromkeys(phase for needs in found.values() for phase in needs.peaks)
    peaks = {
        phase: {name: round(size) for name, size in whole(lambda needs, at=phase: needs.peaks.get(at, {})).items()}
        for phase in phases
    }
    return Needs(peaks, whole(lambda needs: needs.flops))


def line(points: list[tuple[int, float]], at: int) -> float:
    """The value at a place of the line through one or two points.

    >>> line([(2, 10), (4, 14)], 10), line([(3, 7)], 3)
    (26.0, 7)
    """
    (x, y), *more = points
    return y + (at - x) * (more[0][1] - y) / (more[0][0] - x) if more else y
