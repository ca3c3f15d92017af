"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import copy

import lightning as L
import pytest
import torch
from fake_vllm import FakeVLLM, listening
from hypothesis import settings
from subwords import byte_level, save_model, sentencepiece
from tiny import ANSWERS, QUESTIONS, make_prompts, save_tiny

from nrt_lightning import Policy
from nrt_lightning.structures import Prompts

torch.set_num_threads(1)
settings.register_profile("repeatable", deadline=None, derandomize=True)  # neither load nor luck fails a test
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests of a file to one process, which makes what they share only once."""
    if getattr(config.option, "dist", "no") == "load":  # what `--numprocesses` alone means
        config.option.dist = "loadfile"


@pytest.fixture(scope="session", params=["llama", "mistral", "qwen2", "qwen3", "gemma", "gpt2"])
def tiny_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def loaded_policy() -> Policy:
    """The embedded base, of which each test has a copy."""
    return Policy("embedded:registers-base").load()


@pytest.fixture
def policy(loaded_policy: Policy) -> Policy:
    """The embedded base."""
    return copy.deepcopy(loaded_policy)


@pytest.fixture(scope="session", params=["byte_level", "sentencepiece"])
def subword_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model with a subword tokenizer."""
    tokenizer = {"byte_level": byte_level, "sentencepiece": sentencepiece}[request.param]()
    return save_model(tmp_path_factory.mktemp(request.param), tokenizer)


@pytest.fixture
def subword_policy(subword_dir: str) -> Policy:
    return Policy(subword_dir).load()


@pytest.fixture
def prompts(policy: Policy) -> Prompts:
    return make_prompts(policy, QUESTIONS, ANSWERS)


@pytest.fixture
def quiet_trainer(tmp_path):
    """A trainer of short runs that leave nothing behind."""

    def make(**settings) -> L.Trainer:
        L.seed_everything(7)
        defaults = {
            "accelerator": "cpu",
            "max_steps": 4,
            "max_epochs": -1,
            "default_root_dir": tmp_path,
            "gradient_clip_val": 1.0,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
        }
        return L.Trainer(**defaults | settings)

    return make


@pytest.fixture
def fake() -> FakeVLLM:
    """What stands in for vLLM."""
    return FakeVLLM("embedded:registers-base")


@pytest.fixture
def url(fake):
    """Where it listens."""
    with listening(fake) as address:
        yield address


@pytest.fixture
def trainer(tmp_path):
    """A trainer of short runs on the CPU."""

    def make(**settings) -> L.Trainer:
        L.seed_everything(7)
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 4,
            "max_epochs": -1,
            "logger": False,
            "default_root_dir": tmp_path,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
        }
        return L.Trainer(**defaults | settings)

    return make
