"""JSON over HTTP, with a bearer token."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from nrt_lightning.errors import InputError


class Unreachable(Exception):
    """Nobody answers, or the connection broke off."""


class Failed(Exception):
    """The server says that it failed (5xx)."""


class Refused(Exception):
    """The server refuses the request (4xx)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """Calls of one server. No proxy is used, and every call has a connection of its own.

    Args:
        url: where it listens, `http://host:port` or `https://host:port`.
        token: the bearer token; None for none.

    Raises:
        InputError: the URL is none.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise InputError(f"engine.urls {url!r}: give http://HOST:PORT, for instance http://127.0.0.1:8000.")
        self.url, self.token = url.rstrip("/"), token
        self.kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.address = parts.hostname, parts.port

    def call(self, method: str, path: str, body: Any = None, timeout: float | None = None) -> Any:
        """The decoded answer; text where it is no JSON.

        Args:
            method: GET or POST.
            path: on the server.
            body: to send as JSON.
            timeout: seconds without a sign of life; None waits as long as the connection stands.

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


def decoded(text: str) -> Any:
    """The value of a JSON text; the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def message(value: Any) -> str:
    """What an error answer says.

    >>> message({"error": {"message": "no such model"}}), message({"error": "Unauthorized"}), message("gone")
    ('no such model', 'Unauthorized', 'gone')
    """
    error = value.get("error", value.get("detail", value)) if isinstance(value, dict) else value
    return str(error.get("message", error) if isinstance(error, dict) else error)
