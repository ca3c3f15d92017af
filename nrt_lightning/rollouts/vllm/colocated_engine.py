"""Engine that samples from a vLLM in the trainer's process."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import SamplerCorrection, TruncatedImportance
from nrt_lightning.models.policy.plain_weights import plain_weights
from nrt_lightning.rollouts.engine import GenerationRequest, Progress
from nrt_lightning.rollouts.remote.base import RemoteEngine
from nrt_lightning.rollouts.remote.jobs import Job, Line
from nrt_lightning.rollouts.remote.processes import world_size
from nrt_lightning.rollouts.vllm.environment import missing_variables
from nrt_lightning.rollouts.vllm.parameters import sampling_parameters
from nrt_lightning.rollouts.vllm.serving import write_served_model

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class VLLMColocatedEngine(RemoteEngine):
    """Samples from a vLLM in this process, which holds a second copy of the weights.

    vLLM is started at the first use. When the weights have changed, it receives them tensor by tensor, with adapters
    merged. For a single process; several processes need servers.

    Args:
        max_model_len: largest number of tokens in a sequence, prompt included.
        dtype: of vLLM's weights; null for the policy's.
        gpu_memory_utilization: fraction of the GPU's memory for weights and cache.
        enforce_eager: run without compilation and CUDA graphs: slower, but starts at once.
        options: more arguments of `vllm.LLM`.
        sampler_correction: off-policy correction for a loss whose `sampler_correction` is null; null for none.
        tolerance: largest mean difference between the log-probs of sampler and trainer after weights were sent, in
            nats.

    Raises:
        InputError: vLLM is not installed, or there are several processes.

    Example:
        >>> VLLMColocatedEngine(max_model_len=1024).version
        -1
    """

    shares_device = True
    start_hint = " engine.max_model_len is its limit, engine.dtype its precision."

    def __init__(
        self,
        max_model_len: int,
        dtype: str | None = None,
        gpu_memory_utilization: float = 0.4,
        *,
        enforce_eager: bool = False,
        options: dict[str, Any] | None = None,
        sampler_correction: SamplerCorrection | None = TruncatedImportance(),  # noqa: B008  (frozen settings)
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

    @override
    def check(self, policy: Policy) -> None:
        if find_spec("vllm") is None:
            raise InputError(
                "engine VLLMColocatedEngine needs vLLM in the trainer's environment: "
                "pip install 'nrt-lightning[vllm]'. VLLMServerEngine can use another environment."
            )
        if world_size() > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(
                "engine VLLMColocatedEngine works with a single process, but this run has several. Use "
                "VLLMServerEngine, with vLLM on other devices."
            )

    @property
    @override
    def max_tokens(self) -> int:
        return self.max_model_len

    @override
    def load_weights(self, policy: Policy, version: int) -> None:
        if self.llm is None:
            self.llm = self.start(policy)
            return
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": plain_weights(policy)})
        self.llm.reset_prefix_cache()

    def start(self, policy: Policy) -> Any:
        """Start a vLLM with the policy's weights."""
        os.environ.update(missing_variables() | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"})  # tensors stay in the process
        from vllm import LLM

        with tempfile.TemporaryDirectory(prefix="nrt-vllm-") as directory:
            return LLM(
                str(write_served_model(policy, Path(directory) / "policy")),
                dtype=self.dtype or str(policy.dtype).removeprefix("torch."),
                max_model_len=self.max_model_len,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                distributed_executor_backend="uni",
                **self.options,
            )

    @override
    def sample(self, jobs: list[Job], request: GenerationRequest, progress: Progress | None) -> list[list[Line]]:
        from vllm import SamplingParams

        parameters = sampling_parameters(request)
        bias = {int(token): value for token, value in parameters.get("logit_bias", {}).items()} or None
        params = [
            SamplingParams(
                **parameters | {"logit_bias": bias},
                n=job.count,
                seed=job.seed,
                detokenize=request.stop_text is not None,
            )
            for job in jobs
        ]
        prompts = [{"prompt_token_ids": job.prompt_ids} for job in jobs]
        found = self.llm.generate(prompts, params, use_tqdm=False)
        return [[line_of(output) for output in result.outputs] for result in found]


def line_of(output: Any) -> Line:
    """The tokens of a vLLM output and their log-probs."""
    ids = list(output.token_ids)
    return Line(ids, [found[token].logprob for token, found in zip(ids, output.logprobs, strict=True)])
