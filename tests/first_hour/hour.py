"""Plays the commands of docs/first_hour.md as a user does, and reads what they print."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from subwords import byte_level, save_model

KINDS = ("csv", "tsv", "jsonl", "parquet")
LOGGERS = ("tensorboard", "csv", "wandb", "none")
CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
SHORT = ("--trainer.max_steps=2", "--trainer.val_check_interval=1", "--model.sampling.max_trace_tokens=8")
LOGGER = {
    "tensorboard": (),
    "csv": ("--config", "nrt:loggers/csv"),
    "wandb": ("--config", "nrt:loggers/wandb", "--trainer.logger.offline=true"),
    "none": ("--trainer.logger=false",),
}
QUESTION = 'Größe "3 + 4", bitte?'
UNWANTED = (  # in what is printed: failures, advertisements, and warnings about what a user cannot change
    r"Traceback|Exception ignored|\bError:|💡|litlogger|litmodels|lightning\.ai|pip install|\b[Uu]pgrade\b|"
    r"(?:User|Future|Deprecation|Runtime|Possible\w*)Warning|deprecated"
)
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Case:
    """What differs between users."""

    rows: str  # of KINDS
    model: str  # chat or plain
    logger: str  # of LOGGERS
    terminal: bool

    def __str__(self) -> str:
        return "-".join([self.rows, self.model, self.logger, "terminal" if self.terminal else "pipe"])


def in_pairs() -> list[Case]:
    """Cases in which every two choices come together once."""
    return [
        Case(rows, ("chat", "plain")[(i + j) % 2], logger, terminal=bool((i // 2 + j) % 2))
        for i, rows in enumerate(KINDS)
        for j, logger in enumerate(LOGGERS)
    ]


@dataclass
class Said:
    """What a command printed."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        """Both streams without codes of the terminal."""
        return ANSI.sub("", self.out + self.err)


def check_clean(said: Said) -> None:
    """Nothing failed, and nothing is advertised."""
    assert said.code == 0, said.all
    found = re.search(UNWANTED, said.all)
    assert found is None, said.all[max(0, found.start() - 300) : found.end() + 300]


def check_error(said: Said, words: str) -> None:
    """One line that names the culprit."""
    assert said.code != 0
    assert said.err.startswith("error: "), said.err
    assert said.err.count("\n") == 1, said.err
    assert re.search(words, said.err), said.err


def save_rows(path: Path) -> None:
    """Rows with quotes, commas, umlauts, line breaks, and answers that are numbers."""
    found = [(n, f'Größe "{n} + {n % 7}",\n  bitte?', n + n % 7) for n in range(60)]
    header, kind = ("Nr.", "Aufgabe (dt.)", "Ergebnis"), path.suffix[1:]
    records: list[dict[str, Any]] = [dict(zip(header, row)) for row in found]
    if kind in ("csv", "tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="," if kind == "csv" else "\t").writerows([header, *found])
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        import datasets

        datasets.Dataset.from_list(records).to_parquet(path)


def save_small(directory: Path, model: str) -> None:
    """A random model, with a chat template and without a padding token, or the other way round."""
    tokenizer = byte_level()
    if model == "chat":
        tokenizer.chat_template, tokenizer.pad_token = CHAT, None
    save_model(directory, tokenizer)


def environment(home: Path) -> dict[str, str]:
    """Variables of a user with an empty home and without a network."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_", "WANDB_", "PL_"))
    }
    (home / "tmp").mkdir(parents=True)
    nowhere = "http://127.0.0.1:9"
    found = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "OMP_NUM_THREADS": "1", "COLUMNS": "100", "TERM": "xterm"}
    found |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere)
    spec = find_spec("wandb")
    if spec is not None and spec.origin is not None and "site-packages" not in spec.origin:
        found["PYTHONPATH"] = str(Path(spec.origin).parents[1])
    return kept | found


@dataclass
class Shell:
    """Runs commands in a directory, on a terminal or on pipes."""

    program: Sequence[str]
    folder: Path
    variables: dict[str, str]
    terminal: bool

    def __call__(self, *words: str) -> Said:
        """Run a command."""
        command = [*self.program, *words]
        if not self.terminal:
            done = subprocess.run(
                command, cwd=self.folder, env=self.variables, capture_output=True, check=False, stdin=subprocess.DEVNULL
            )
            return Said(done.returncode, done.stdout.decode(), done.stderr.decode())
        main, own = pty.openpty()
        with subprocess.Popen(
            command, cwd=self.folder, env=self.variables, stdin=own, stdout=own, stderr=own
        ) as process:
            os.close(own)
            shown = read_all(main)
            return Said(process.wait(timeout=60), shown.replace("\r\n", "\n"), "")


def read_all(terminal: int, seconds: float = 300) -> str:
    """Everything that appears on a terminal until it is closed."""
    found, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            new = os.read(terminal, 65536)
        except OSError:  # the process has closed it
            break
        found += new
    os.close(terminal)
    return found.decode()
