"""What `nrt-lightning init` prints."""

from __future__ import annotations

import textwrap

import yaml

from nrt_lightning.cli.starter.machine import Machine
from nrt_lightning.cli.starter.model import ModelFacts, size_text
from nrt_lightning.cli.starter.rows import RowFacts
from nrt_lightning.cli.starter.settings import known, template_text
from nrt_lightning.cli.starter.text import one_line
from nrt_lightning.data import PlainTemplate
from nrt_lightning.data.templates import PromptTemplate

WIDTH, INDENT = 100, 10


def wording(template: PromptTemplate) -> str:
    """What the template asks, as the end of a sentence.

    >>> wording(PlainTemplate("Q: {question}"))
    ": 'Q: {question}'"
    """
    if isinstance(template, PlainTemplate):
        return f": {template.filled(template.template)!r}"
    instruction = getattr(template, "instruction", None)
    return f"; after the question {template.filled(instruction)!r}" if instruction else ""


def told(rows: RowFacts | None, model: ModelFacts | None, machine: Machine | None, text: str) -> str:
    """What was found and what follows, one line each.

    Args:
        rows: None if no file is given.
        model: None if no model is given.
        machine: None if it has not been looked at.
        text: the config.
    """
    config = yaml.safe_load(text)
    settings, data = config["model"]["init_args"], config["data"]["init_args"]
    policy = settings["policy"]["init_args"]
    lines = {
        "rows": "no --data: set data.init_args.train in the file",
        "model": "no --model: set model.init_args.policy in the file",
    }
    if rows is not None:
        lines["rows"] = (
            f"{len(rows.rows):,} in {rows.path}; {rows.columns()}. {rows.training:,} to train on, "
            f"{data['val_rows']} for validation, {data['test_rows']} for the test"
        )
        if rows.repeated:
            lines["rows"] += f". {rows.repeated:,} repeat the question of an earlier row: remove them"
    if model is not None:
        context = "" if model.context is None else f", {model.context:,} tokens of context"
        lines["model"] = f"{model.name}: {size_text(model.weights)} weights, {model.config.model_type}{context}"
        lines["prompts"] = f"{template_text(model)}{wording(model.template)}"
        _, is_new, markup = model.prepared
        lines["marker"] = f"{str(markup).removeprefix('marker ')}; it is {known(markup, is_new=is_new)}"
    if rows is not None and model is not None:
        prompts, answers = rows.tokens(model)
        lines["lengths"] = (
            f"prompts up to {max(prompts)} tokens (limit {data['max_prompt_tokens']}), answers up to {max(answers)} "
            f"({data['max_answer_tokens']}), traces limited to {settings['sampling']['max_trace_tokens']}"
        )
    if machine is not None:
        lines["machine"] = str(machine)
    if model is not None:
        part = "all weights" if policy["adapter"] is None else f"LoRA of rank {policy['adapter']['init_args']['rank']}"
        base = "4 bits" if policy["quantization"] else policy["dtype"]
        lines["training"] = (
            f"{part}, base in {base}; {config['trainer']['max_steps']} steps of {data['batch_size']} prompts x "
            f"{settings['sampling']['group_size']} traces"
        )
    return "\n".join(
        textwrap.fill(one_line(line), WIDTH, initial_indent=f"{name:<{INDENT}}", subsequent_indent=" " * INDENT)
        for name, line in lines.items()
    )
