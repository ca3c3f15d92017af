"""JSON over HTTP with a bearer token, and retries until a server answers."""

from __future__ import annotations

import http.client
import json
import logging
import selectors
import socket
import time
from collections.abc import Callable
from threading import Event, Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from nrt_lightning.errors import InputError

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two attempts
SHORTEST = 3.0  # seconds that an answer may always take
POLL = 10.0  # seconds between two questions whether the server is alive, at most
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # seconds, seconds, probes; where they exist


class Unreachable(Exception):
    """No answer, or the connection was lost.

    Args:
        text: what happened.
        alive: when the server last gave a sign of life before, in seconds of `time.monotonic`; None if unknown.
    """

    def __init__(self, text: str, alive: float | None = None) -> None:
        super().__init__(text)
        self.alive = alive


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
        url: `http://host:port` or `https://host:port`; an IPv6 address in brackets.
        token: the bearer token; None for none.
        patience: seconds without a sign of life after which a call ends and `insist` gives up.

    Raises:
        InputError: the URL is malformed.
    """

    def __init__(self, url: str, token: str | None = None, patience: float = 300.0) -> None:
        try:
            parts = urlsplit(url)
            self.address = parts.hostname or "", parts.port
        except ValueError:  # a port that is no number, brackets that are open
            parts, self.address = urlsplit(""), ("", None)
        if parts.scheme not in ("http", "https") or not self.address[0] or parts.path not in ("", "/"):
            raise InputError(
                f"engine.urls {url!r}: give http://HOST:PORT, for instance http://127.0.0.1:8000, with an IPv6 address "
                "in brackets: http://[::1]:8000."
            )
        self.url, self.token, self.patience = url.rstrip("/"), token, patience
        self.kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.alive = self.asked = float("-inf")  # when it last gave a sign of life, and was last asked for one
        self.asking = Lock()

    @property
    def bound(self) -> float:
        """Seconds without a sign of life after which a call ends."""
        return max(self.patience, SHORTEST)

    def call(
        self, method: str, path: str, body: Any = None, timeout: float | None = None, canceled: Event | None = None
    ) -> Any:
        """Send one request; return the decoded JSON of the response, or its text if it is not JSON.

        Args:
            method: GET or POST.
            path: on the server.
            body: sent as JSON.
            timeout: seconds without data, at most `bound`; None waits as long as the server is alive, which it is
                asked beside the call.
            canceled: set when the answer is no longer needed.

        Raises:
            Unreachable: no answer.
            Failed: status 500 and above.
            Refused: status 400 to 499.
        """
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = self.kind(*self.address, timeout=min(timeout or self.bound, self.bound))
        try:
            connection.connect()
            keep_alive(connection.sock)
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            if timeout is None:
                self.wait(connection.sock, canceled or Event())
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()
        value = decoded(text)
        if answer.status >= 500:
            raise Failed(message(value))
        self.alive = time.monotonic()
        if answer.status >= 400:
            raise Refused(answer.status, message(value))
        return value

    def wait(self, connected: socket.socket, canceled: Event) -> None:
        """Return when there is something to read.

        Raises:
            Unreachable: the server gave no sign of life for `bound` seconds, or the answer is no longer needed.
        """
        alive = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(connected, selectors.EVENT_READ)
            while not selector.select(min(self.interval, 1.0)):
                if canceled.is_set():
                    raise Unreachable("the answer is no longer needed", alive)
                if self.is_alive():
                    alive = time.monotonic()
                elif (silent := time.monotonic() - alive) > self.bound:
                    raise Unreachable(f"it accepted a request and has been silent for {silent:.0f} seconds", alive)

    @property
    def interval(self) -> float:
        """Seconds between two questions whether the server is alive."""
        return min(POLL, self.bound / 4)

    def is_alive(self) -> bool:
        """True if the server has given a sign of life lately; it is asked for one, by one thread at a time."""
        if time.monotonic() - max(self.alive, self.asked) > self.interval and self.asking.acquire(blocking=False):
            try:
                self.asked = time.monotonic()
                self.call("GET", "/health", timeout=self.interval)
            except (Unreachable, Failed, Refused):  # a refusal is a sign of life, which `call` has noted
                pass
            finally:
                self.asking.release()
        return time.monotonic() - self.alive <= 2 * self.interval

    def insist(
        self, ask: Callable[[], Answer], again: Callable[[], object] = lambda: None, canceled: Event | None = None
    ) -> Answer:
        """Repeat a request until there is an answer, with increasing pauses.

        Args:
            ask: makes the request.
            again: called before every repetition; it may fail as `ask` may.
            canceled: set when the answer is no longer needed.

        Raises:
            InputError: there was no sign of life for `patience` seconds, or the server refuses the request.
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
                started = max(started, getattr(error, "alive", None) or started)
                waited = time.monotonic() - started
                if waited + pause > self.patience or canceled.is_set():
                    raise InputError(
                        f"engine.urls {self.url}: no answer for {waited:.0f} seconds ({error}). Start the server "
                        "again, and resume from the last checkpoint with --ckpt_path."
                    ) from error
                log.warning("%s does not answer (%s); next attempt in %.1f s", self.url, error, pause)
                canceled.wait(pause)
                retry, pause = True, min(2 * pause, LONGEST_WAIT)


def keep_alive(connected: socket.socket) -> None:
    """Let the system notice a peer that is gone."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


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
