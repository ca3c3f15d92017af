"""vLLM in the trainer's own process."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import TruncatedImportance
from nrt_lightning.models.policy.plain_weights import plain_weights
from nrt_lightning.rollouts.engine import Progress
from nrt_lightning.rollouts.remote.base import VLLMEngine
from nrt_lightning.rollouts.remote.files import write_model
from nrt_lightning.rollouts.remote.jobs import Job, Line
from nrt_lightning.rollouts.remote.processes import world_size
from nrt_lightning.rollouts.vllm.environment import settings as variables

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class VLLMColocatedEngine(VLLMEngine):
    """Samples with a vLLM in this process, which holds a second copy of the weights.

    It is started when it is first used, and gets the weights, those of an adapter merged, tensor by tensor whenever
    they have changed. For one process; several need servers.

    Args:
        max_model_len: tokens of the longest text, prompt and all.
        dtype: of its weights; null for that of the policy's.
        gpu_memory_utilization: share of the GPU's memory that it takes, weights and cache.
        enforce_eager: run without compiling and CUDA graphs: slower, but starts at once.
        options: further arguments of `vllm.LLM`.
        sampler_correction: what the loss corrects for this sampler with, where it has no `sampler_correction` itself;
            null for nothing.
        tolerance: largest mean difference, in nats, of the log-probs of sampler and trainer at the start.

    Raises:
        InputError: vLLM is not installed, or there are several processes.

    Example:
        >>> VLLMColocatedEngine(max_model_len=1024).version
        -1
    """

    def __init__(
        self,
        max_model_len: int,
        dtype: str | None = None,
        gpu_memory_utilization: float = 0.4,
        enforce_eager: bool = False,
        options: dict[str, Any] | None = None,
        sampler_correction: TruncatedImportance | None = TruncatedImportance(),  # noqa: B008  (frozen settings)
        tolerance: float = 0.1,
    ) -> None:
        super().__init__(sampler_correction, tolerance)
        check_at_least("engine.max_model_len", max_model_len, 1)
        self.max_model_len, self.dtype = max_model_len, dtype
        self.options = {
            "gpu_memory_utilization": gpu_memory_utilization,
            "enforce_eager": enforce_eager,
            **(options or {}),
        }
        self.llm: Any = None  # vllm.LLM

    def check(self, policy: Policy) -> None:
        """See `RolloutEngine`."""
        if find_spec("vllm") is None:
            raise InputError(
                "engine VLLMColocatedEngine needs vLLM in the trainer's own environment: "
                "pip install 'nrt-lightning[vllm]'. VLLMServerEngine can have it in another."
            )
        if world_size() > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(
                "engine VLLMColocatedEngine is for one process, and this run has several. Use VLLMServerEngine, with "
                "vLLM on devices of its own."
            )

    @property
    def max_tokens(self) -> int:
        """See `VLLMEngine`."""
        return self.max_model_len

    def hand_over(self, policy: Policy, version: int) -> None:
        """See `VLLMEngine`."""
        if self.llm is None:
            self.llm = self.start(policy)
            return
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": plain_weights(policy)})
        self.llm.reset_prefix_cache()

    def start(self, policy: Policy) -> Any:
        """A vLLM with the policy's weights."""
        os.environ.update(variables() | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"})  # tensors cannot leave the process
        from vllm import LLM

        with tempfile.TemporaryDirectory(prefix="nrt-vllm-") as place:
            return LLM(
                str(write_model(policy, Path(place) / "policy")),
                dtype=self.dtype or str(policy.dtype).removeprefix("torch."),
                max_model_len=self.max_model_len,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                distributed_executor_backend="uni",
                **self.options,
            )

    def write(self, jobs: list[Job], settings: dict[str, Any], progress: Progress | None) -> list[list[Line]]:
        """See `VLLMEngine`."""
        from vllm import SamplingParams

        bias = {int(token): value for token, value in settings.get("logit_bias", {}).items()} or None
        params = [
            SamplingParams(**settings | {"logit_bias": bias}, n=job.count, seed=job.seed, detokenize=False)
            for job in jobs
        ]
        prompts = [{"prompt_token_ids": job.prompt_ids} for job in jobs]
        found = self.llm.generate(prompts, params, use_tqdm=False)
        return [[line_of(output) for output in result.outputs] for result in found]


def line_of(output: Any) -> Line:
    """What vLLM wrote, with the log-probs of the tokens that it sampled."""
    ids = list(output.token_ids)
    return Line(ids, [found[token].logprob for token, found in zip(ids, output.logprobs, strict=True)])
