"""JSON over HTTP with a bearer token, and retries until a server answers."""

from __future__ import annotations

import http.client
import json
import logging
import time
from collections.abc import Callable
from threading import Event
from typing import Any, TypeVar
from urllib.parse import urlsplit

from nrt_lightning.errors import InputError

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two attempts


class Unreachable(Exception):
    """No answer, or the connection was lost."""


class Failed(Exception):
    """The server reports an error of its own (5xx)."""


class Refused(Exception):
    """The server refuses the request (4xx)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """Requests to one server. Uses no proxy, and a new TCP connection for every call.

    Args:
        url: `http://host:port` or `https://host:port`.
        token: the bearer token; None for none.
        patience: seconds without an answer after which `insist` gives up.

    Raises:
        InputError: the URL is malformed.
    """

    def __init__(self, url: str, token: str | None = None, patience: float = 300.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise InputError(f"engine.urls {url!r}: give http://HOST:PORT, for instance http://127.0.0.1:8000.")
        self.url, self.token, self.patience = url.rstrip("/"), token, patience
        self.kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.address = parts.hostname, parts.port

    def call(self, method: str, path: str, body: Any = None, timeout: float | None = None) -> Any:
        """Send one request; return the decoded JSON of the response, or its text if it is not JSON.

        Args:
            method: GET or POST.
            path: on the server.
            body: sent as JSON.
            timeout: seconds without data; None waits as long as the connection is open.

        Raises:
            Unreachable: no answer.
            Failed: status 500 and above.
            Refused: status 400 to 499.
        """
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = self.kind(*self.address, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()
        value = decoded(text)
        if answer.status >= 500:
            raise Failed(message(value))
        if answer.status >= 400:
            raise Refused(answer.status, message(value))
        return value

    def insist(
        self, ask: Callable[[], Answer], again: Callable[[], object] = lambda: None, canceled: Event | None = None
    ) -> Answer:
        """Repeat a request until there is an answer, with increasing pauses.

        Args:
            ask: makes the request.
            again: called before every repetition; it may fail as `ask` may.
            canceled: set when the answer is no longer needed.

        Raises:
            InputError: there was no answer for `patience` seconds, or the server refuses the request.
        """
        canceled = canceled or Event()
        started, pause, retry = time.monotonic(), FIRST_WAIT, False
        while True:
            try:
                if retry:
                    again()
                return ask()
            except Refused as error:
                raise InputError(f"engine.urls {self.url} refuses: {error}") from error
            except (Unreachable, Failed) as error:
                waited = time.monotonic() - started
                if waited + pause > self.patience or canceled.is_set():
                    raise InputError(
                        f"engine.urls {self.url}: no answer for {waited:.0f} seconds ({error}). Start the server "
                        "again, and resume from the last checkpoint with --ckpt_path."
                    ) from error
                log.warning("%s does not answer (%s); next attempt in %.1f s", self.url, error, pause)
                canceled.wait(pause)
                retry, pause = True, min(2 * pause, LONGEST_WAIT)


def decoded(text: str) -> Any:
    """The value of a JSON text, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def message(value: Any) -> str:
    """The message in an error response.

    >>> message({"error": {"message": "no such model"}}), message({"error": "Unauthorized"}), message("gone")
    ('no such model', 'Unauthorized', 'gone')
    """
    error = value.get("error", value.get("detail", value)) if isinstance(value, dict) else value
    return str(error.get("message", error) if isinstance(error, dict) else error)
