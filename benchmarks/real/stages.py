"""Stages of the comparison: commands of `nrt-lightning`, each in a folder of its own, that go on where they stopped."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nrt_lightning import InputError


@dataclass
class Stage:
    """A command whose folder gets `log.txt` and, when it has finished, `done.json`.

    Args:
        folder: the run's folder.
        words: of the command, without the folder.
        resumed: True for a training, which goes on from its newest checkpoint.
    """

    folder: Path
    words: list[str]
    resumed: bool = False

    @property
    def command(self) -> list[str]:
        """The whole command."""
        more = ["--ckpt_path=auto"] if self.resumed else []
        command = [sys.executable, "-m", "nrt_lightning", *self.words, f"--trainer.default_root_dir={self.folder}"]
        return command + more

    def run(self) -> float:
        """Run it unless it has finished; return its seconds, all attempts together.

        Raises:
            InputError: it failed, or the folder holds a stage with another command.
        """
        done, record = self.folder / "done.json", {"words": self.words}
        if done.is_file():
            kept = json.loads(done.read_text())
            if kept["words"] != self.words:
                raise InputError(f"{self.folder} holds a stage with other settings. Move it away, or set --folder.")
            return float(kept["seconds"])
        self.folder.mkdir(parents=True, exist_ok=True)
        spent = self.folder / "seconds"
        before = float(spent.read_text()) if spent.is_file() else 0.0
        print(f"{self.folder}: {' '.join(self.words)}", flush=True)
        started = time.perf_counter()
        try:
            failed = logged(self.command, self.folder / "log.txt")
        finally:
            seconds = before + time.perf_counter() - started
            spent.write_text(f"{seconds:.1f}")
        if failed:
            raise InputError(f"{self.folder}: the stage failed. See {self.folder / 'log.txt'}, then run it again.")
        done.write_text(json.dumps(record | {"seconds": round(seconds, 1)}))
        return round(seconds, 1)


def logged(command: list[str], path: Path, show: Callable[[str], object] = sys.stdout.write) -> int:
    """Run a command; write what it prints to a file too. Returns its exit status."""
    with (
        path.open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
            show(line)
            sys.stdout.flush()
        return process.wait()


def clock(seconds: float) -> str:
    """Seconds as Lightning's `max_time` wants them.

    >>> clock(3725.4)
    '00:01:02:05'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days:02}:{hours:02}:{minutes:02}:{seconds:02}"
