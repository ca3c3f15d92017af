"""Tokens per CPU second of the in-process engine and of a vLLM server on one core.

    python -m benchmarks.vllm_throughput

A random Llama of width 256 with 8 layers continues 4 prompts of 64 tokens, 8 times each. Even: every row has 128
tokens. Uneven: a row ends with probability 0.02 at each token. CPU seconds are summed over all processes, including
the server's HTTP and scheduling. Rounds alternate, and medians are printed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from nrt_lightning import Policy, RolloutEngine, TransformersEngine, VLLMServerEngine
from nrt_lightning.models.policy.loading import resolve
from nrt_lightning.rollouts import GenerationRequest
from nrt_lightning.rollouts.vllm.serving import ServerProcess, ServerSettings, write_served_model

ROUNDS, PROMPTS, GROUP, PROMPT_TOKENS, NEW_TOKENS = 5, 4, 8, 64, 128
VOCABULARY, ENDS = 1024, 20  # tokens, and how many of them end an uneven row


def base(directory: Path) -> str:
    """A random Llama with the embedded tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, head_dim=32, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(resolve("embedded:registers-base")).save_pretrained(directory)
    return str(directory)


def cpu_seconds(session: int) -> float:
    """CPU seconds of this process and of all processes in a session; of this process alone if it is 0."""
    total = time.process_time()
    for stat in Path("/proc").glob("[0-9]*/stat") if session else []:
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(fields[3]) == session:
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        policy = Policy(base(directory / "base")).load().eval()
        served = write_served_model(policy, directory / "served")
        serve = ServerSettings(port=8790, dtype="float32", max_model_len=PROMPT_TOKENS + NEW_TOKENS + 1)
        with ServerProcess(served, serve, log=directory / "log.txt") as server:
            assert server.process is not None
            engines = {"in-process": TransformersEngine(), "vLLM server": VLLMServerEngine([serve.url])}
            print("| lengths | engine | tokens a CPU second | tokens a second |\n|---|---|---:|---:|")
            for lengths, stops in {"even": [], "uneven": list(range(100, 100 + ENDS))}.items():
                rows = measure(policy, engines, stops, server.process.pid)
                for engine, (per_cpu, per_wall) in rows.items():
                    print(f"| {lengths} | {engine} | {per_cpu:,.0f} | {per_wall:,.0f} |", flush=True)


def measure(
    policy: Policy, engines: dict[str, RolloutEngine], stops: list[int], session: int
) -> dict[str, tuple[float, float]]:
    """Medians over alternating rounds by engine."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for number in range(ROUNDS + 1):  # the first warms up
        ids = torch.randint(3, 60, (PROMPTS, PROMPT_TOKENS), generator=torch.Generator().manual_seed(number))
        request = GenerationRequest(ids, torch.ones_like(ids, dtype=torch.bool), NEW_TOKENS, stops, GROUP, seed=number)
        for name, engine in engines.items():
            counted = session if engine.own_weights else 0  # an idle server polls for requests
            cpu, wall = cpu_seconds(counted), time.perf_counter()
            tokens = int(engine.generate(policy, request).token_mask.sum())
            cpu, wall = cpu_seconds(counted) - cpu, time.perf_counter() - wall
            if number:
                found[name].append((tokens / cpu, tokens / wall))
    return {name: tuple(map(statistics.median, zip(*pairs))) for name, pairs in found.items()}  # type: ignore[misc]


if __name__ == "__main__":
    main()
