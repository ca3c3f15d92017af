"""Files of an evaluation: one line per question as it is answered, and the figures at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.answered import AnsweredQuestion
from nrt_lightning.files import replaced

KIND = "nrt-lightning evaluate"


class Results:
    """The answers of an evaluation in `NAME.rows.jsonl`, and its figures in `NAME.json`.

    The first line of the rows says which evaluation it is. Later lines are the questions in the order of the data.
    Whole batches are written; what a kill leaves of another is cut off when the evaluation goes on.

    Args:
        path: of the figures, `NAME.json`.
        identity: all that the answers follow from, as plain values.
        overwrite: start again, and replace the files.

    Raises:
        InputError: the files are of another evaluation, or cannot be read or written.
    """

    def __init__(self, path: Path, identity: dict[str, Any], *, overwrite: bool = False) -> None:
        if path.suffix != ".json":
            raise InputError(f"--out={str(path)!r}: give the name of a .json file.")
        self.path, self.rows_path = path, path.with_suffix(".rows.jsonl")
        self.header: dict[str, Any] = {"kind": KIND, "evaluation": json.loads(json.dumps(identity))}
        self.done: list[AnsweredQuestion] = []
        self._ends: list[int] = []  # bytes up to and with each line
        if overwrite or not self.rows_path.exists():
            self._start(overwrite=overwrite)
        else:
            self._read()

    def continue_after(self, batch_size: int, total: int) -> int:
        """Keep the whole batches that are done; return the number of their questions."""
        kept = len(self.done) if len(self.done) == total else len(self.done) // batch_size * batch_size
        os.truncate(self.rows_path, self._ends[kept])
        del self.done[kept:]
        return kept

    def add(self, batch: Sequence[AnsweredQuestion]) -> None:
        """Write the questions of a batch."""
        with self.rows_path.open("a", encoding="utf-8") as file:
            file.writelines(line(question.to_dict()) for question in batch)
            file.flush()
            os.fsync(file.fileno())
        self.done += batch

    def finish(self, figures: dict[str, Any]) -> None:
        """Write the figures."""
        with replaced(self.path) as file:
            file.write(json.dumps(self.header | figures, indent=2, ensure_ascii=False) + "\n")

    def _start(self, *, overwrite: bool) -> None:
        if self.path.exists() and not overwrite:
            raise InputError(
                f"--out={str(self.path)!r} exists, without {self.rows_path.name} beside it. Give another name, or "
                "--overwrite=true."
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self.rows_path.write_text(line(self.header), encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out={str(self.path)!r} cannot be written ({error}). Give another.") from error
        self._ends = [self.rows_path.stat().st_size]

    def _read(self) -> None:
        """Read what is done, up to the first line that is not whole."""
        try:
            lines = self.rows_path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise InputError(f"{self.rows_path} cannot be read ({error}). Give another --out.") from error
        if not lines or not lines[0].endswith(b"\n"):  # killed in the first line
            return self._start(overwrite=True)
        self._check(lines[0])
        self._ends = [len(lines[0])]
        for written in lines[1:]:
            try:
                if not written.endswith(b"\n"):
                    break
                self.done.append(AnsweredQuestion.from_dict(json.loads(written)))
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{self.rows_path}:{len(self.done) + 2} is damaged ({error}). Remove it, or give --overwrite=true."
                ) from error
            self._ends.append(self._ends[-1] + len(written))
        return None

    def _check(self, written: bytes) -> None:
        try:
            header = json.loads(written)
            known = header["kind"] == KIND and isinstance(header["evaluation"], dict)
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise InputError(f"{self.rows_path} is no file of `nrt-lightning evaluate`. Give another --out.")
        mine, theirs = self.header["evaluation"], header["evaluation"]
        for name in [*mine, *theirs]:
            if mine.get(name) != theirs.get(name):
                raise InputError(
                    f"--out={str(self.path)!r} holds another evaluation: {name} is {shown(theirs.get(name))} there and "
                    f"{shown(mine.get(name))} here. Give another --out, or --overwrite=true."
                )


def line(fields: dict[str, Any]) -> str:
    """A line of the rows."""
    return json.dumps(fields, ensure_ascii=False) + "\n"


def shown(value: Any) -> str:
    """A value in an error."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."
