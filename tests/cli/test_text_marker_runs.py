"""Training with a marker of ordinary text, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.small_runs import QUICKSTART, SMALL
from nrt_lightning.cli.main import run
from nrt_lightning.errors import InputError

TEXT = ["--model.policy.marker=|", "--model.policy.separator=", "--model.sampling.suppress_eos=false",
        "--model.loss.marker_rows=forced", "--model.loss.marker_coef=0.3"]  # fmt: skip
AGGREGATIONS = ["nrt_gm", "nrt_am", "nrt_prob", "nrt_log_prob", "nrt_ws_inverse_prob", "nrt_ws_neg_log_prob"]


def test_the_markup_is_printed_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr("nrt_lightning.data.datamodule.rank_zero_info", printed.append)
    Path("small.yaml").write_text(SMALL.replace("callbacks: []", "enable_checkpointing: true"))
    run(["fit", "--config", QUICKSTART, "--config", "small.yaml", *TEXT, "--model.policy.answer_end=;"])
    [shown] = printed
    assert "marker '|' (text, id 53), answer ends with ';' (text, id" in shown
    assert "The prompt does not name '|'" in shown
    run(["validate", "--config", QUICKSTART, "--config", "small.yaml", *TEXT, "--ckpt_path=last",
         "--model.policy.answer_end=;"])  # fmt: skip
    with pytest.raises(InputError, match=r"markup marker '\|' .*\(here marker '<\|response_start\|>'"):
        run(["validate", "--config", QUICKSTART, "--config", "small.yaml", "--ckpt_path=last"])


@pytest.mark.slow
@pytest.mark.parametrize("method", AGGREGATIONS)
def test_every_aggregation_learns_with_it(method: str) -> None:
    words = ["--config", f"nrt:methods/{method}", *TEXT, "--trainer.max_epochs=2", "--trainer.default_root_dir=run"]
    run(["fit", "--config", QUICKSTART, *words])
    [entry] = json.loads(Path("run/results.json").read_text()).values()
    assert entry["exact_match"] >= 0.95
