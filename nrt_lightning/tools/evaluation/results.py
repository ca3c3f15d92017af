"""Files of an evaluation: one line per question as it is answered, and the figures at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.answered import AnsweredQuestion
from nrt_lightning.files import replaced
from nrt_lightning.tools.evaluation.files import KIND, check_out, lock, rows_path_of

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)  # no JSON, or of other fields


class Results:
    """The answers of an evaluation in `NAME.rows.jsonl`, and its figures in `NAME.json`.

    The first line of the rows says which evaluation it is. Later lines are the questions in the order of the data.
    Each has a `check`, which follows from all lines before it, so that a line that was edited, moved or removed is
    found. Whole batches are written; what a kill leaves of another is cut off when the evaluation goes on.

    Args:
        path: of the figures, `NAME.json`.
        identity: all that the answers follow from, as plain values.
        overwrite: start again, and replace the files of another evaluation.

    Raises:
        InputError: the files are of another evaluation, were changed, are being written by another process, or cannot
            be read or written.
    """

    def __init__(self, path: Path, identity: dict[str, Any], *, overwrite: bool = False) -> None:
        check_out(path, overwrite=overwrite)
        self.path, self.rows_path = path, rows_path_of(path)
        self.header: dict[str, Any] = {"kind": KIND, "evaluation": json.loads(json.dumps(identity))}
        self.done: list[AnsweredQuestion] = []
        self._ends: list[int] = []  # bytes up to and with each line
        self._checks: list[str] = []  # of each line
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.rows_path.open("a+b")
        except OSError as error:
            raise InputError(f"--out={str(path)!r} cannot be written ({error.strerror}). Give another.") from error
        try:
            lock(self._file, self.rows_path)
            self._file.seek(0)
            lines = [] if overwrite else self._file.read().splitlines(keepends=True)
            if lines and lines[0].endswith(b"\n"):
                self._read(lines)
            else:  # new, or killed in the first line
                self._start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another evaluation write to the file."""
        self._file.close()

    def continue_after(self, batch_size: int, total: int) -> int:
        """Keep the whole batches that are done; return the number of their questions."""
        kept = len(self.done) if len(self.done) == total else len(self.done) // batch_size * batch_size
        self._file.truncate(self._ends[kept])
        del self.done[kept:], self._checks[kept + 1 :]
        return kept

    def add(self, batch: Sequence[AnsweredQuestion]) -> None:
        """Write the questions of a batch.

        Raises:
            InputError: the disk is full, or the file cannot be written for another reason.
        """
        lines = []
        for question in batch:
            fields = question.to_dict()
            self._checks.append(check_of(self._checks[-1], fields))
            lines.append(line(fields | {"check": self._checks[-1]}))
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritten(self.rows_path, error) from error
        self.done += batch

    def finish(self, figures: dict[str, Any]) -> None:
        """Write the figures.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            with replaced(self.path) as file:
                file.write(json.dumps(self.header | figures, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise self._unwritten(self.path, error) from error

    def _start(self) -> None:
        header = line(self.header)
        try:
            self.path.unlink(missing_ok=True)
            self._file.truncate(0)
            self._file.write(header)
            self._file.flush()
        except OSError as error:
            raise self._unwritten(self.path, error) from error
        self._ends, self._checks = [len(header)], [check_of("", self.header)]

    def _read(self, lines: list[bytes]) -> None:
        """Read what is done, up to the first line that is not whole."""
        self._compare(json.loads(lines[0])["evaluation"])
        if lines[0] != line(self.header):
            raise self._changed(1)
        self._ends, self._checks = [len(lines[0])], [check_of("", self.header)]
        for number, written in enumerate(lines[1:], start=2):
            if not written.endswith(b"\n"):
                break
            try:
                fields = json.loads(written)
                check = fields.pop("check")
                self._checks.append(check_of(self._checks[-1], fields))
                question = AnsweredQuestion.from_dict(fields)
            except UNREADABLE as error:
                raise self._changed(number) from error
            if check != self._checks[-1] or written != line(fields | {"check": check}):
                raise self._changed(number)
            self.done.append(question)
            self._ends.append(self._ends[-1] + len(written))

    def _compare(self, theirs: dict[str, Any]) -> None:
        mine = self.header["evaluation"]
        for name in [*mine, *theirs]:
            if mine.get(name) != theirs.get(name):
                raise InputError(
                    f"--out={str(self.path)!r} holds another evaluation: {name} is {shown(theirs.get(name))} there and "
                    f"{shown(mine.get(name))} here. Give another --out, or --overwrite=true."
                )

    def _changed(self, number: int) -> InputError:
        return InputError(
            f"{self.rows_path}:{number} is not as it was written, or a line before it is missing. Restore the file, "
            "give another --out, or start again with --overwrite=true."
        )

    def _unwritten(self, path: Path, error: OSError) -> InputError:
        return InputError(
            f"{path} cannot be written ({error.strerror}). Correct this, and start again: the {len(self.done)} "
            f"questions in {self.rows_path} are kept."
        )


def check_of(before: str, fields: dict[str, Any]) -> str:
    """The check of a line, from that of the line before.

    >>> check_of("", {"id": "1"}) == check_of("", {"id": "1"}) != check_of("x", {"id": "1"})
    True
    """
    return blake2b(before.encode() + line(fields), digest_size=4).hexdigest()


def line(fields: dict[str, Any]) -> bytes:
    """A line of the rows."""
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def shown(value: Any) -> str:
    """A value in an error."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."
