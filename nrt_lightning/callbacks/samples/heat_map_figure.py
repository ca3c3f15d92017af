"""The picture of the answer heat map, by matplotlib."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import Any

import torch

from nrt_lightning.callbacks.samples.records import Record

COLUMNS = 48  # tokens of an answer that are drawn
WRAP, LINES = 64, 2  # characters and lines of the trace beside a look
LIMIT = 3.0  # nats at which the color is full
INK, FAINT = "#23272e", "#8a919c"
CELL, LINE = 0.36, 0.30  # inches: width of a token, height of a look


def draw(looks: list[Record]) -> Any:
    """A figure with one panel a question: looks from top to bottom, tokens of the answer from left to right.

    Args:
        looks: records of validation rows with their `step`, in the order of steps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    questions: dict[str, list[Record]] = {}
    for look in looks:
        questions.setdefault(look["id"], []).append(look)
    panels = list(questions.values())
    tokens = [min(len(panel[0]["answer_tokens"]), COLUMNS) for panel in panels]
    heights = [(len(panel) + 2) * LINE + 0.75 for panel in panels]  # inches
    longest = max(len(line) for look in looks for line in beside(look["traces"][0]["text"]).split("\n"))
    width = max(9.0, max(tokens) * CELL + 2.4 + longest * 0.062)
    figure = Figure(figsize=(width, sum(heights) + 0.9), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    total, top = sum(heights) + 0.7, 0.6
    title = "What a trace adds to each token of the answer: log c - log b, nats"
    figure.text(0.02, 1 - 0.3 / total, title, fontsize=11, color=INK, weight="bold", va="center")
    for panel, count, height in zip(panels, tokens, heights, strict=True):
        lines = len(panel) + 2
        bottom = total - top - height + 0.05
        axes = figure.add_axes((1.1 / width, bottom / total, count * CELL / width, lines * LINE / total))
        draw_panel(axes, panel, count)
        top += height
    color_bar(figure, width, total)
    return figure


def draw_panel(axes: Any, panel: list[Record], count: int) -> None:
    """One question."""
    import matplotlib

    gains, hardness = values(panel, count)
    colors = matplotlib.colormaps["RdBu"]((gains / LIMIT).clamp(-1, 1).numpy() / 2 + 0.5)  # [looks, tokens, 4]
    first, last = matplotlib.colormaps["Greys"]((hardness / 6).clamp(0, 0.9).numpy())  # [tokens, 4] each
    axes.imshow([first.tolist(), *colors.tolist(), last.tolist()], aspect="auto", interpolation="nearest")
    axes.set_xticks(range(count), [label(text) for text in panel[0]["answer_tokens"][:count]], family="monospace")
    axes.tick_params(length=0, labelsize=8, colors=INK)
    axes.xaxis.tick_top()
    steps = [f"step {look['step']}" for look in panel]
    axes.set_yticks(range(len(panel) + 2), [f"without, {panel[0]['step']}", *steps, f"without, {panel[-1]['step']}"])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks([column + 0.5 for column in range(count - 1)], minor=True)
    axes.set_yticks([line + 0.5 for line in range(len(panel) + 1)], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    left_out = len(panel[0]["answer_tokens"]) - count + panel[0].get("answer_tokens_left_out", 0)
    more = f"  ({left_out} more tokens)" if left_out else ""
    question = textwrap.shorten(escaped(panel[0]["question"]), 90, placeholder=" ...")
    axes.set_title(f"{question}{more}", loc="left", fontsize=9, color=INK, family="monospace", pad=18)
    axes.text(count - 0.2, len(panel) + 1, "darker: harder without a trace", fontsize=7, color=FAINT, va="center")
    axes.text(count - 0.2, 0, "own answer, trace", fontsize=7, color=FAINT, va="center")
    for number, look in enumerate(panel, start=1):
        trace = look["traces"][0]
        mark = {True: "right", False: "wrong", None: ""}[trace["right"]]
        color = {"right": "#1a6b3c", "wrong": "#a4352b", "": FAINT}[mark]
        axes.text(count - 0.2, number, mark, fontsize=7, color=color, va="center")
        axes.text(count + 0.9, number, beside(trace["text"]), fontsize=7, color=INK, va="center", family="monospace")


def values(panel: list[Record], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """log c_i - log b_i of each look, [looks, tokens], and -log b_i at the first and the last, [2, tokens]."""
    unknown = [0.0] * count
    rows = []
    for look in panel:
        with_trace, without = look["traces"][0]["logprobs"] or unknown, look["baseline_logprobs"] or unknown
        rows.append([c - b for c, b in zip(with_trace[:count], without[:count], strict=True)])
    hardness = [[-b for b in (look["baseline_logprobs"] or unknown)[:count]] for look in (panel[0], panel[-1])]
    return torch.tensor(rows).nan_to_num(0.0), torch.tensor(hardness).nan_to_num(0.0)


def color_bar(figure: Any, width: float, total: float) -> None:
    """What the colors mean."""
    import matplotlib

    axes = figure.add_axes(((width - 2.4) / width, 1 - 0.36 / total, 1.5 / width, 0.12 / total))
    axes.imshow([[tuple(matplotlib.colormaps["RdBu"](x / 99)) for x in range(100)]], aspect="auto")
    axes.set_xticks([0, 49.5, 99], [f"-{LIMIT:g}", "0", f"+{LIMIT:g}"], fontsize=7, color=INK)
    axes.set_yticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def escaped(text: str) -> str:
    """A text for matplotlib: on one line, no formulas, no glyphs that its font lacks a form for."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).replace("$", "\\$")


def label(text: str) -> str:
    """A token as a label: white space is visible, long ones are cut."""
    shown = text.replace("\n", "\\n").replace("\t", "\\t")
    shown = shown.replace(" ", "\u00b7") if shown.strip() != shown or not shown else shown
    return escaped(shown if len(shown) <= 5 else shown[:4] + "\u2026")


def beside(text: str) -> str:
    """A trace in the lines that there is room for."""
    lines = textwrap.wrap(escaped(text), WRAP) or ["(empty)"]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1][: WRAP - 4] + " ..."]
    return "\n".join(lines)


def write(figure: Any, path: Path) -> Any:
    """Write the picture to a file; return it as an array, [height, width, 3]."""
    import numpy

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path)
    return numpy.asarray(figure.canvas.buffer_rgba())[:, :, :3].copy()
