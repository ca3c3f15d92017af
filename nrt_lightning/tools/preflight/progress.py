"""How far a preflight is, and how long it will take: lines of text, or a bar in a terminal."""

from __future__ import annotations

import math
import time
from datetime import timedelta

from tqdm import tqdm

EVERY = 20.0  # seconds between two lines
TIMED = 4  # tokens of the first traces after which their limit tells how long sampling will take


class Progress:
    """Prints what a preflight has to say while it runs.

    Args:
        rows: that will be looked at.
        batch: rows looked at together.
        traces: per row.
        shown: False prints nothing.
        bar: True shows a bar, as in a terminal; False prints lines.
    """

    def __init__(self, rows: int, batch: int, traces: int, *, shown: bool, bar: bool) -> None:
        self.rows, self.batch, self.traces, self.shown = rows, batch, traces, shown
        self.done = 0  # rows
        self.started = self.last = time.monotonic()
        self.first: tuple[int, float] | None = None  # tokens and time at the first report of the engine
        self.estimated = False
        self.bar = tqdm(total=rows, unit="question", leave=False, disable=not (shown and bar))
        self.lines = shown and not bar

    def say(self, text: str) -> None:
        """Print a text, above the bar."""
        if self.shown:
            with self.bar.external_write_mode():
                print(text, flush=True)

    def tokens(self, done: int, limit: int, unfinished: int) -> None:
        """Take a report of the engine: tokens of the longest trace, their limit, unfinished traces."""
        now = time.monotonic()
        if self.first is None:
            self.first = done, now
        tokens, seconds = done - self.first[0], now - self.first[1]
        if not self.estimated and self.done == 0 and (tokens >= TIMED or (tokens and seconds >= EVERY / 4)):
            self.estimated = True
            each = seconds / tokens
            passes = max(1.0, self.batch * self.traces / max(unfinished, 1))
            total = each * limit * passes * math.ceil(self.rows / self.batch)
            most = f"sampling for all {self.rows} questions takes at most about {span(total)}"
            self.say(f"{1000 * each:.0f} ms a token: {most}, and scoring and answers come on top")
        at = f"traces at {done} of {limit} tokens, {unfinished} not ended"
        if self.bar.disable:
            if self.lines and now - self.last >= EVERY:
                self.last = now
                self.say(f"{self.done} of {self.rows} questions, {at}")
        else:
            self.bar.set_postfix_str(at)

    def looked(self, rows: int) -> None:
        """Count rows that have been looked at."""
        self.done += rows
        self.bar.set_postfix_str("", refresh=False)
        self.bar.update(rows)
        self.bar.refresh()
        now = time.monotonic()
        if self.lines and (now - self.last >= EVERY or self.done == self.rows):
            self.last = now
            self.say(f"{self.done} of {self.rows} questions, {span(now - self.started)} passed{self.left()}")

    def left(self) -> str:
        """The time that is left, as the end of a line; empty at the end."""
        if not 0 < self.done < self.rows:
            return ""
        seconds = (time.monotonic() - self.started) / self.done * (self.rows - self.done)
        return f", about {span(seconds)} left"

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()


def span(seconds: float) -> str:
    """A time for a reader.

    >>> span(3.2), span(400)
    ('0:00:03', '0:06:40')
    """
    return str(timedelta(seconds=round(seconds)))
