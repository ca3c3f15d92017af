"""Settings of a run that follow from its rows, its model and its machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nrt_lightning.cli.starter.examples import example_tokens
from nrt_lightning.cli.starter.machine import GIB, Machine
from nrt_lightning.cli.starter.model import ModelFacts, size_text
from nrt_lightning.cli.starter.rows import RowFacts, limit
from nrt_lightning.cli.starter.text import Setting
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Markup

Settings = dict[str, Setting]

MODEL, DATA, POLICY = "model.init_args", "data.init_args", "model.init_args.policy.init_args"
SMALL = 30e6  # weights of a model that is trained whole
EXAMPLES = 128  # fewest tokens of prompts for worked examples that may be added to the template
SHORTEST = 16  # tokens of a trace that must fit into the context


def settings_for(output: str, rows: RowFacts | None, model: ModelFacts | None, machine: Machine | None) -> Settings:
    """The settings that differ from those of `own_data.yaml`.

    Args:
        output: the config to be written, which names the folder of its runs.
        rows: None if no file is given.
        model: None if no model is given.
        machine: None if the config is for any machine.

    Raises:
        InputError: the prompts do not fit into the model's context.
    """
    found = {"trainer.default_root_dir": Setting(f"runs/{Path(output).stem}")}
    if rows is not None:
        found |= of_rows(rows)
    if machine is not None:
        found |= of_machine(machine, Pace.of(model, machine))
    trace = Pace.of(model, machine).trace
    if rows is not None and model is not None:
        prompt, answer = lengths(rows, model)
        room = max(EXAMPLES, limit([example_tokens(model)], 32))
        free = (model.context or sum((prompt, answer, trace, room))) - prompt - answer
        trace = min(trace, free)
        found |= of_lengths(prompt, min(room, free - trace), trace, answer)
    if model is not None and machine is not None:
        found |= of_model(model, machine) | of_memory(model, machine, trace)
    return found


def of_rows(rows: RowFacts) -> Settings:
    """The file, its columns, and how its rows are divided."""
    count, held_out = len(rows.rows), rows.held_out
    batch = min(8, 2 ** (max(1, rows.training // 2).bit_length() - 1))
    values = {field.name: getattr(rows.format, field.name) for field in fields(rows.format)}  # type: ignore[arg-type]
    values = {name: value for name, value in values.items() if name != "id"}
    kind = type(rows.format)
    by_default = rows.format == kind() and kind.__name__ == "QuestionAnswer"
    given: Any = None if by_default else {"class_path": f"nrt_lightning.{kind.__name__}", "init_args": values}
    divided = f"of {count:,}, for"
    return {
        f"{DATA}.train": Setting(rows.path, f"{count:,} rows"),
        f"{DATA}.format": Setting(given, "" if by_default else "columns of question and answer"),
        f"{DATA}.val_rows": Setting(held_out, f"rows {divided} validation; not trained on"),
        f"{DATA}.test_rows": Setting(held_out, f"rows {divided} the test after training; not trained on"),
        f"{DATA}.batch_size": Setting(batch),
        f"{DATA}.eval_batch_size": Setting(min(32, held_out)),
    }


@dataclass(frozen=True)
class Pace:
    """How much a first run does: what takes less than about an hour."""

    steps: int
    validate: int  # every so many steps
    trace: int  # limit in tokens

    @classmethod
    def of(cls, model: ModelFacts | None, machine: Machine | None) -> Pace:
        """The pace for a model and a machine; that of a CPU where they are unknown."""
        if machine is not None and machine.gpu is not None:
            return cls(300, 50, 512)
        return cls(200, 20, 128) if model is not None and model.weights < SMALL else cls(60, 15, 96)


def of_machine(machine: Machine, pace: Pace) -> Settings:
    """Accelerator and number of steps."""
    return {
        "trainer.accelerator": Setting("cpu" if machine.gpu is None else "gpu", str(machine)),
        "trainer.max_steps": Setting(pace.steps),
        "trainer.val_check_interval": Setting(pace.validate),
        f"{MODEL}.sampling.max_trace_tokens": Setting(pace.trace),
    }


def lengths(rows: RowFacts, model: ModelFacts) -> tuple[int, int]:
    """Limits of prompts and answers in tokens, above those of all rows.

    Raises:
        InputError: they leave no room for a trace; names the first row that is too long.
    """
    prompts, answers = rows.tokens(model)
    context = model.context or sys.maxsize
    most = context - SHORTEST
    if max(prompts) + max(answers) > most:
        long = [row.origin for row, *sizes in zip(rows.rows, prompts, answers, strict=False) if sum(sizes) > most]
        which = f"{len(long)} of {len(rows.rows)} rows, first {long[0]}, leave" if long else "together they leave"
        raise InputError(
            f"--data={rows.path!r}: prompts of up to {max(prompts)} tokens and answers of up to {max(answers)}; "
            f"{which} no room for a trace in the {context} tokens of {model.name!r}. Shorten or remove such rows, or "
            "take a model with more."
        )
    above = limit(prompts, 32), limit(answers, 8)
    return above if sum(above) <= most else (max(prompts), max(answers))


def of_lengths(prompt: int, examples: int, trace: int, answer: int) -> Settings:
    """Limits of lengths, with room in the prompt for worked examples."""
    shown = "longer rows are dropped and counted; no row is"
    room = f", also with {examples} tokens of examples in the template" if examples else ""
    return {
        f"{DATA}.max_prompt_tokens": Setting(prompt + examples, shown + room),
        f"{DATA}.max_answer_tokens": Setting(answer, f"with the end token; {shown}"),
        f"{MODEL}.sampling.max_trace_tokens": Setting(trace),
        f"{MODEL}.sampling.max_answer_tokens": Setting(answer),
    }


def of_model(model: ModelFacts, machine: Machine) -> Settings:
    """The model, what of it is trained, and in which precision."""
    count, gpu = model.weights, machine.gpu is not None
    whole = count < SMALL
    four_bit = gpu and not whole and 2 * count > 0.6 * machine.memory
    half = not whole and (gpu or machine.bfloat16 or 4 * count > 0.5 * machine.memory)
    if not gpu and 2 * count > 0.7 * machine.memory:
        raise InputError(
            f"--model={model.name!r}: {size_text(count)} weights take {2 * count / GIB:.0f} GiB in 16 bits, but this "
            f"machine has {machine.memory / GIB:.0f} GiB and no GPU. Take a smaller model."
        )
    found = {
        f"{POLICY}.model": Setting(model.name, f"{size_text(count)} weights, {model.config.model_type}"),
        f"{POLICY}.dtype": Setting("bfloat16" if half else "float32"),
        f"{POLICY}.activation_checkpointing": Setting(count > 1e9),
        f"{MODEL}.optimizer.init_args.lr": learning_rate(count, whole=whole),
    }
    if model.pad_token is not None:
        found[f"{POLICY}.pad_token"] = Setting(model.pad_token, "pads; the tokenizer names no padding token")
    _, is_new, markup = model.prepared
    found[f"{POLICY}.marker"] = Setting(
        None, f"text that ends a trace; null takes {markup.marker!r}, {known(markup, is_new=is_new)}"
    )
    found[f"{POLICY}.answer_end"] = Setting(None, f"text or token that ends an answer; null takes {markup.end!r}")
    found[f"{DATA}.template"] = Setting(None, template_text(model))
    if whole:
        found[f"{POLICY}.adapter"] = Setting(None, "all weights are trained, for the model is small; LoRA trains few")
        if gpu and machine.bfloat16:
            found["trainer.precision"] = Setting("bf16-mixed", "weights and optimizer in float32")
    if four_bit:
        value = {"class_path": "nrt_lightning.FourBit"}
        found[f"{POLICY}.quantization"] = Setting(value, "the base in 4 bits: in 16 it would fill the GPU")
    return found


def template_text(model: ModelFacts) -> str:
    """What `template: null` takes."""
    if model.chat:
        return "the tokenizer's chat template"
    return "a plain text that asks for reasoning, because the tokenizer has no chat template"


def known(markup: Markup, *, is_new: bool) -> str:
    """What a marker is to the model."""
    if is_new:
        return "a new token, because the tokenizer cannot write a text"
    return "a token of the model" if markup.marker_token else "a text that the prompts name"


def learning_rate(count: int, *, whole: bool) -> Setting:
    """The learning rate for a number of weights."""
    if whole:
        return Setting(3e-4 if count < 1e6 else 1e-4, "of all weights of a small model; not tuned on your rows")
    rate = 1e-4 if count < 1e9 else 5e-5 if count < 4e9 else 2e-5
    return Setting(rate, f"of an adapter on {size_text(count)} weights; not tuned on your rows")


def of_memory(model: ModelFacts, machine: Machine, trace: int) -> Settings:
    """How much is computed at once."""
    stored = 16 if model.weights < SMALL else 2.5  # bytes of a weight with its gradient and optimizer, or frozen
    free = max(0.8 * machine.memory - stored * model.weights, 0.1 * machine.memory)
    tokens = free / 2 / model.activation_bytes(checkpointing=model.weights > 1e9)
    rows = free / 2 / (model.cache_bytes * 2 * trace)
    return {
        f"{MODEL}.max_tokens_per_micro_batch": Setting(max(1000, min(24_000, int(tokens) // 1000 * 1000))),
        f"{MODEL}.engine.init_args.max_rows": Setting(max(8, min(256 if machine.gpu else 64, int(rows) // 8 * 8))),
    }
