"""What stands between a trace and its answer, and what ends the answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Markup:
    """The marker and the end of the answer, in `trace + marker + separator + answer + end`.

    A marker or end that is a token of its own is found by its id: the same characters, written with other tokens, are
    text. Any other marker or end is found by its text, in whatever tokens it is written.

    Example:
        >>> markup = Markup(" =>", (7, 8), marker_token=False, end="<eos>", end_ids=(2,))
        >>> print(markup)
        marker ' =>' (text, ids 7 8), answer ends with '<eos>' (token, id 2)
    """

    marker: str
    marker_ids: tuple[int, ...]  # its usual tokens, which are written where it is forced
    marker_token: bool  # True: a token of its own
    separator: str = ""  # text between marker and answer; belongs to the answer's tokens
    end: str = ""
    end_ids: tuple[int, ...] = ()  # its usual tokens
    end_token: bool = True

    @property
    def marker_text(self) -> str | None:
        """The marker, if it is found by its text."""
        return None if self.marker_token else self.marker

    @property
    def end_text(self) -> str | None:
        """The end, if it is found by its text."""
        return None if self.end_token else self.end

    def marker_stops(self) -> list[int]:
        """The tokens that are the marker by themselves."""
        return list(self.marker_ids) if self.marker_token else []

    def end_stops(self) -> list[int]:
        """The tokens that are the end by themselves."""
        return list(self.end_ids) if self.end_token else []

    def answer_of(self, text: str) -> str:
        """A decoded answer without its end and without white space around it.

        >>> Markup("", (), True, end="\\n", end_ids=(3,), end_token=False).answer_of(" 12\\n\\n")
        '12'
        """
        return (text if self.end_token else text.lstrip().partition(self.end)[0]).strip()

    def __str__(self) -> str:
        between = f", then {self.separator!r}" if self.separator else ""
        marker = f"{self.marker!r} ({kind(self.marker_ids, token=self.marker_token)})"
        return f"marker {marker}{between}, answer ends with {self.end!r} ({kind(self.end_ids, token=self.end_token)})"


def kind(ids: tuple[int, ...], *, token: bool) -> str:
    """How something is found, and its ids."""
    return f"{'token' if token else 'text'}, {'id' if len(ids) == 1 else 'ids'} {' '.join(map(str, ids))}"
