"""Whether a policy's weights have changed, for those who hold a copy of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim.optimizer import register_optimizer_step_post_hook

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class _Steps:
    """Optimizer steps of this process, of whatever optimizer."""

    taken = 0

    @classmethod
    def count(cls, *_: Any) -> None:
        cls.taken += 1


register_optimizer_step_post_hook(_Steps.count)


def weights_state(policy: Policy) -> tuple[int, int, int]:
    """Another value after an optimizer step, and after any other change of the weights in place.

    torch counts changes of a tensor in place, but some optimizers write past it.

    Args:
        policy: loaded.

    Example:
        >>> import torch
        >>> from nrt_lightning import Policy
        >>> policy = Policy("embedded:registers-base").load()
        >>> before = weights_state(policy)
        >>> before == weights_state(policy)
        True
        >>> torch.optim.SGD(policy.parameters()).step()
        >>> before == weights_state(policy)
        False
    """
    return id(policy), _Steps.taken, sum(parameter._version for parameter in policy.parameters())
