"""Engines that sample with vLLM: from servers over HTTP, or in the trainer's process."""

from nrt_lightning.rollouts.vllm.colocated_engine import VLLMColocatedEngine
from nrt_lightning.rollouts.vllm.server_engine import VLLMServerEngine
from nrt_lightning.rollouts.vllm.sync import AdapterSync, WeightsSync, WeightSync

__all__ = ["AdapterSync", "VLLMColocatedEngine", "VLLMServerEngine", "WeightSync", "WeightsSync"]
