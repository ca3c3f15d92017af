"""The answer heat map."""

import importlib.util
import warnings

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from short_runs import nrt_module, registers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nrt_lightning import AnswerHeatMap, InputError
from nrt_lightning.callbacks.samples.heat_map_figure import draw, label, values, write


def look(step, tokens, c, b, trace="a trace"):
    found = {"text": trace, "logprobs": c, "right": True}
    return {"step": step, "id": "q", "question": "what $x$?", "answer_tokens": tokens, "baseline_logprobs": b,
            "traces": [found]}  # fmt: skip


def test_colors_are_the_differences_of_log_probs():
    panel = [look(1, ["a", "b"], [-1.0, -0.5], [-3.0, -0.25]), look(2, ["a", "b"], [-0.1, -0.5], [-4.0, -0.5])]
    gains, hardness = values(panel, 2)
    assert gains.tolist() == [[2.0, -0.25], [pytest.approx(3.9), 0.0]]
    assert hardness.tolist() == [[3.0, 0.25], [4.0, 0.5]]


def test_a_blue_token_is_likelier_and_a_red_one_less():
    pytest.importorskip("matplotlib")
    axes = draw([look(1, ["a", "b"], [0.0, -3.0], [-3.0, 0.0])]).axes[0]
    (red, _, blue), (red_2, _, blue_2) = [axes.images[0].get_array()[1][column][:3] for column in (0, 1)]
    assert blue > red
    assert red_2 > blue_2


@pytest.mark.parametrize(
    "text", ["$a_b$ \\frac{1}{2", "line\nbreak\ttab", "x" * 500, "", "\u4f60\u597d \U0001f600", "```|\\$"]
)
def test_any_text_can_be_drawn(text, tmp_path):
    pytest.importorskip("matplotlib")
    tokens = [text[:9]] * 60
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = write(draw([look(1, tokens, [-1.0] * 60, None, text)]), tmp_path / "x.png")
    assert pixels.shape[2] == 3
    assert pixels.min() < 250, "something is drawn"


def test_white_space_in_tokens_is_visible():
    assert [label(text) for text in (" a", "\n", "long token", "")] == ["\u00b7a", "\\n", "long\u2026", ""]


def test_the_picture_is_a_file_and_an_image(quiet_trainer, tmp_path):
    pytest.importorskip("matplotlib")
    made = quiet_trainer(
        logger=TensorBoardLogger(tmp_path, "", "tb"), callbacks=[AnswerHeatMap(rows=2)], max_steps=2,
        limit_val_batches=1, check_val_every_n_epoch=None, val_check_interval=1,
    )  # fmt: skip
    made.fit(nrt_module(), registers())
    assert (tmp_path / "tb" / "answer_heat_map.png").stat().st_size > 5000
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [image.step for image in events.Images("answer_heat_map")] == [2]


def test_without_matplotlib_the_message_names_the_install(quiet_trainer, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    with pytest.raises(InputError, match=r"AnswerHeatMap.*pip install.*plot"):
        quiet_trainer(callbacks=[AnswerHeatMap()], max_steps=1).fit(nrt_module(), registers())
