"""Measures steps of TRL's GRPOTrainer with an NRT reward function; a subprocess of `benchmarks.step`."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.measure import Phases
from benchmarks.run import WARM_UP, Run, Sampled, main
from benchmarks.workload import EOS_ID, MARKER_ID, PAD_ID, build_model, build_tokenizer, texts


class NRTReward:
    """WS(-log p) of the answer after each trace, as a careful user of GRPOTrainer would write it.

    The answers are scored in one batch, the output head runs over the answers' positions only, and the baseline is
    scored once per prompt.
    """

    __name__ = "nrt_reward"

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @torch.no_grad()
    def __call__(
        self, prompts: list[str], completion_ids: list[list[int]], answer: list[str], **kwargs: Any
    ) -> list[float]:
        questions = self.tokenizer(prompts)["input_ids"]
        answers = [[*ids, EOS_ID] for ids in self.tokenizer(answer, add_special_tokens=False)["input_ids"]]
        first = list(dict.fromkeys(prompts))  # the baseline needs every prompt once
        index = [prompts.index(prompt) for prompt in first]
        baseline = self.logprobs([questions[i] for i in index], [answers[i] for i in index])
        weights = {prompt: -values for prompt, values in zip(first, baseline)}
        read = [question + [i for i in trace if i != EOS_ID] for question, trace in zip(questions, completion_ids)]
        confidences = [values.exp() for values in self.logprobs(read, answers)]
        return [float((weights[prompt] * c).mean()) for prompt, c in zip(prompts, confidences)]

    def logprobs(self, before: list[list[int]], answers: list[list[int]]) -> list[torch.Tensor]:
        """Log-probs of every answer after the text before it and the marker."""
        before = [[*ids, MARKER_ID] for ids in before]
        left, right = max(map(len, before)), max(map(len, answers))
        rows = [[PAD_ID] * (left - len(b)) + b + a + [PAD_ID] * (right - len(a)) for b, a in zip(before, answers)]
        real = [[0] * (left - len(b)) + [1] * len(b + a) + [0] * (right - len(a)) for b, a in zip(before, answers)]
        ids, mask = torch.tensor(rows), torch.tensor(real)
        logits = self.model(input_ids=ids, attention_mask=mask, logits_to_keep=right + 1).logits[:, :-1]
        logprobs = logits.float().log_softmax(dim=-1).gather(-1, ids[:, -right:, None]).squeeze(-1)
        return [row[: len(answer)] for row, answer in zip(logprobs, answers)]


class Meter(TrainerCallback):
    """Divides a run into steps. A step lasts from the end of the previous one to its end."""

    def __init__(self, phases: Phases) -> None:
        self.phases = phases

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.phases.wrap(kwargs["optimizer"], "step", "optimizer")
        self.phases.end_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.phases.end_step()


def train(run: Run, phases: Phases) -> list[Sampled]:
    """Train, and return the number of tokens that each step sampled."""
    work, steps = run.work, WARM_UP + run.steps
    model, tokenizer = build_model(work).to(run.dtype), build_tokenizer(work.vocabulary)
    rows = [{"prompt": question, "answer": answer} for step in range(steps) for question, answer in texts(work, step)]
    reward = NRTReward(model, tokenizer)
    sampled: list[Sampled] = []

    def timed_reward(**kwargs: Any) -> list[float]:
        traces = kwargs["completion_ids"]
        sampled.append({"tokens": sum(map(len, traces)), "ended": sum(trace[-1] == EOS_ID for trace in traces)})
        with phases("reward"):
            return reward(**kwargs)

    with tempfile.TemporaryDirectory() as directory:
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=timed_reward,
            train_dataset=Dataset.from_list(rows),
            args=settings(run, directory, steps),
            callbacks=[Meter(phases)],
            peft_config=LoraConfig(r=run.rank, lora_alpha=32, target_modules="all-linear") if run.rank else None,
        )
        phases.wrap(trainer, "_generate_single_turn", "rollout")
        phases.wrap(trainer, "compute_loss", "forward")
        phases.wrap(trainer.accelerator, "backward", "backward")
        phases.wrap(trainer.accelerator, "clip_grad_norm_", "optimizer")
        trainer.train()
    return sampled


def settings(run: Run, directory: str, steps: int) -> GRPOConfig:
    """The workload's sizes, without KL, as on our side, and the authors' optimizer."""
    return GRPOConfig(
        output_dir=directory,
        max_steps=steps,
        per_device_train_batch_size=run.work.rollouts,
        num_generations=run.work.group_size,
        max_completion_length=run.work.trace_tokens,
        beta=0.0,
        gradient_checkpointing=run.checkpointing,
        use_cpu=True,
        bf16=run.half,
        shuffle_dataset=False,
        learning_rate=2e-6,
        adam_beta1=0.9,
        adam_beta2=0.95,
        adam_epsilon=1e-15,
        weight_decay=0.01,
        max_grad_norm=1.0,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main(train)
