"""One vLLM server, as it is asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from nrt_lightning.errors import InputError
from nrt_lightning.rollouts.remote.connection import Connection, Failed, Refused, Unreachable
from nrt_lightning.rollouts.remote.jobs import Job, Line

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
LOOK = 30.0  # seconds that a small question may take
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two tries


class Server:
    """A vLLM server that holds weights for one run.

    Args:
        url: where it listens.
        token: its bearer token; None for none.
        patience: seconds without an answer after which it is given up.
    """

    def __init__(self, url: str, token: str | None, patience: float) -> None:
        self.connection, self.patience = Connection(url, token), patience
        self.url = self.connection.url
        self.model, self.max_tokens = "", 0  # the name of the model that it was started with, and its longest text

    # Before training

    def check(self, policy: Policy, routes: list[str]) -> None:
        """Refuse a server that is not there, is not ours to use, or serves another vocabulary.

        Args:
            policy: whose tokens it must know; its weights need not be loaded.
            routes: what it must offer.

        Raises:
            InputError: naming the server and the mend.
        """
        self.connect()
        offered = self.look("GET", "/openapi.json").get("paths", {})
        missing = [route for route in routes if route not in offered]
        if missing:
            raise InputError(
                f"engine.urls {self.url} does not offer {', '.join(missing)}, by which it would get the policy's "
                "weights. Start it with `nrt-lightning serve`, or with VLLM_SERVER_DEV_MODE=1 and, for an adapter, "
                "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."
            )
        self.check_vocabulary(policy)
        [line] = self.complete(Job([policy.marker_id], 1, 0), {"allowed_token_ids": [policy.marker_id], **ONE_TOKEN})
        if line.ids != [policy.marker_id] or abs(line.logprobs[0]) > 1e-3:  # of the one token that may be drawn: 0
            raise InputError(
                f"engine.urls {self.url} gives log-probs of the model, not of the distribution that it samples from. "
                "Start it with --logprobs-mode processed_logprobs."
            )

    def connect(self) -> None:
        """Learn what is served."""
        try:
            served = self.connection.call("GET", "/v1/models", timeout=LOOK)["data"]
        except Unreachable as error:
            raise InputError(
                f"engine.urls {self.url}: no server answers there ({error}). Start one with `nrt-lightning serve`, and "
                "wait until it says that it is ready."
            ) from error
        except Refused as error:
            if error.status in (401, 403):
                raise InputError(
                    f"engine.urls {self.url} refuses the token ({error}). Set the environment variable that "
                    "engine.token_variable names to the token that the server was started with."
                ) from error
            raise InputError(f"engine.urls {self.url} is no vLLM server: it has no /v1/models ({error}).") from error
        [first, *_] = [entry for entry in served if entry.get("parent") is None]
        self.model, self.max_tokens = first["id"], first["max_model_len"]

    def check_vocabulary(self, policy: Policy) -> None:
        """Refuse a server that reads the marker, or other text, as other tokens."""
        marker = policy.tokenizer.convert_ids_to_tokens(policy.marker_id)
        found = self.tokens(marker)
        if found != [policy.marker_id]:
            raise InputError(
                f"engine.urls {self.url} does not have the marker: it reads {marker!r} as the tokens {found}, and the "
                f"policy as {policy.marker_id}. Serve the policy's own directory: `nrt-lightning serve` writes it."
            )
        size = len(policy.tokenizer)
        text = policy.tokenizer.decode([*range(0, size, max(1, size // 200))])
        ours = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.tokens(text) != ours:
            raise InputError(
                f"engine.urls {self.url} serves a model of another vocabulary than {policy.source!r}: the same text is "
                "other tokens. Serve the policy's own directory: `nrt-lightning serve` writes it."
            )

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, as the server reads it."""
        question = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return self.look("POST", "/tokenize", question)["tokens"]

    # Writing

    def complete(self, job: Job, settings: dict[str, Any], model: str | None = None) -> list[Line]:
        """Continue a prompt.

        Args:
            job: the prompt.
            settings: of the sampling.
            model: name of the model or adapter; None for the model that the server was started with.

        Raises:
            Unreachable: the connection broke off.
            Failed: the server did.
            Refused: the request cannot be served.
        """
        body = settings | {
            "model": model or self.model,
            "prompt": job.prompt_ids,
            "n": job.count,
            "seed": job.seed,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
        }
        try:
            choices = self.connection.call("POST", "/v1/completions", body)["choices"]
        except Refused as error:
            if "Out of range float values" not in str(error):
                raise
            raise InputError(
                f"engine.urls {self.url} gives log-probs that are not numbers: the weights it has hold nan or inf. If "
                "the policy's do not, they are those of an earlier run: start the server anew."
            ) from error
        return [
            Line(choice["token_ids"], choice["logprobs"]["token_logprobs"])
            for choice in sorted(choices, key=lambda choice: choice["index"])
        ]

    # Asking

    def look(self, method: str, path: str, body: Any = None) -> Any:
        """A small question that must be answered."""
        return self.insist(lambda: self.connection.call(method, path, body, timeout=LOOK))

    def order(self, path: str, body: Any) -> None:
        """Have weights taken over.

        Raises:
            InputError: the server cannot read or use them.
        """
        try:
            self.connection.call("POST", path, body)
        except (Refused, Failed) as error:
            raise InputError(
                f"engine.urls {self.url} cannot take over the policy's weights ({error}). Does it see the directory "
                "(engine.directory), and was it started with the policy's own model, as `nrt-lightning serve` does?"
            ) from error

    def insist(
        self, ask: Callable[[], Answer], again: Callable[[], object] = lambda: None, given_up: Event | None = None
    ) -> Answer:
        """Ask until there is an answer, with longer and longer pauses.

        Args:
            ask: the question.
            again: what to do before it is asked again; it may fail alike.
            given_up: set when nobody waits for the answer any more.

        Raises:
            InputError: the server has not answered for `patience` seconds, or refuses.
        """
        given_up = given_up or Event()
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
                if waited + pause > self.patience or given_up.is_set():
                    raise InputError(
                        f"engine.urls {self.url} has been lost: no answer for {waited:.0f} seconds ({error}). Start it "
                        "again, and go on from the last checkpoint with --ckpt_path."
                    ) from error
                log.warning("%s does not answer (%s); asked again in %.1f s", self.url, error, pause)
                given_up.wait(pause)
                retry, pause = True, min(2 * pause, LONGEST_WAIT)


ONE_TOKEN = {"max_tokens": 1, "temperature": 1.0, "logprobs": 0, "ignore_eos": True}
