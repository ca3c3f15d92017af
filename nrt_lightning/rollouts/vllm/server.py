"""Client of one vLLM server."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError
from nrt_lightning.rollouts.remote.connection import Connection, Failed, Refused, Unreachable
from nrt_lightning.rollouts.remote.jobs import Job, Line

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

QUICK = 30.0  # timeout of requests that sample nothing, in seconds


class Server(Connection):
    """A vLLM server that holds the weights of one run.

    Args:
        url: `http://host:port`.
        token: its bearer token; None for none.
        patience: seconds without an answer after which it counts as lost.
    """

    def __init__(self, url: str, token: str | None, patience: float) -> None:
        super().__init__(url, token, patience)
        self.model, self.max_tokens = "", 0  # name of the model it was started with, and its longest sequence

    # Before training

    def check(self, policy: Policy, routes: list[str]) -> None:
        """Check that the server can be reached and used, and has the policy's vocabulary.

        Args:
            policy: whose tokens it must have; its weights need not be loaded.
            routes: that it must offer.

        Raises:
            InputError: names the server and the fix.
        """
        self.connect()
        offered = self.ask("GET", "/openapi.json").get("paths", {})
        missing = [route for route in routes if route not in offered]
        if missing:
            raise InputError(
                f"engine.urls {self.url} lacks the routes {', '.join(missing)} for receiving weights. Start it with "
                "`nrt-lightning serve`, or with VLLM_SERVER_DEV_MODE=1 and, for an adapter, --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1."
            )
        self.check_vocabulary(policy)
        token = policy.markup.marker_ids[0]
        [line] = self.complete(Job([token], 1, 0), {"allowed_token_ids": [token], **ONE_TOKEN})
        if line.ids != [token] or abs(line.logprobs[0]) > 1e-3:  # the only allowed token has log-prob 0
            raise InputError(
                f"engine.urls {self.url} returns log-probs of the model, not of the sampling distribution. Start it "
                "with --logprobs-mode processed_logprobs."
            )

    def connect(self) -> None:
        """Read the name and the limits of the served model."""
        try:
            served = self.quick("GET", "/v1/models")["data"]
        except Unreachable as error:
            raise InputError(
                f"engine.urls {self.url}: no server answers ({error}). Start one with `nrt-lightning serve`, and wait "
                "until it reports that it is ready."
            ) from error
        except Refused as error:
            if error.status in (401, 403):
                raise InputError(
                    f"engine.urls {self.url} refuses the token ({error}). Set the environment variable named by "
                    "engine.token_variable to the token that the server was started with."
                ) from error
            raise InputError(
                f"engine.urls {self.url} is not a vLLM server: it has no route /v1/models ({error})."
            ) from error
        [first, *_] = [entry for entry in served if entry.get("parent") is None]
        self.model, self.max_tokens = first["id"], first["max_model_len"]

    def check_vocabulary(self, policy: Policy) -> None:
        """Check that the server tokenizes the marker and other text as the policy does."""
        marker = policy.markup.marker
        found, ours = self.tokens(marker), policy.tokenizer(marker, add_special_tokens=False)["input_ids"]
        if found != ours:
            raise InputError(
                f"engine.urls {self.url} does not have the marker: it tokenizes {marker!r} as {found}, the policy as "
                f"{ours}. Serve the directory that `nrt-lightning serve` writes."
            )
        size = len(policy.tokenizer)
        text = policy.tokenizer.decode([*range(0, size, max(1, size // 200))])
        ours = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.tokens(text) != ours:
            raise InputError(
                f"engine.urls {self.url} serves a model of another vocabulary than {policy.source!r}: it tokenizes the "
                "same text differently. Serve the directory that `nrt-lightning serve` writes."
            )

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text under the server's tokenizer."""
        question = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return self.ask("POST", "/tokenize", question)["tokens"]

    # Requests

    def complete(
        self, job: Job, parameters: dict[str, Any], model: str | None = None, canceled: Event | None = None
    ) -> list[Line]:
        """Sample the continuations of a prompt.

        Args:
            job: the prompt.
            parameters: of the sampling.
            model: name of the model or adapter; None for the model that the server was started with.
            canceled: set when the lines are no longer needed.

        Raises:
            Unreachable: the connection was lost.
            Failed: the server failed.
            Refused: the request cannot be served.
        """
        body = parameters | {
            "model": model or self.model,
            "prompt": job.prompt_ids,
            "n": job.count,
            "seed": job.seed,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
        }
        try:
            choices = self.call("POST", "/v1/completions", body, canceled=canceled)["choices"]
        except Refused as error:
            if "Out of range float values" not in str(error):
                raise
            raise InputError(
                f"engine.urls {self.url} returns log-probs that are nan or inf, and so are its weights. If the "
                "policy's are not, they come from an earlier run: restart the server."
            ) from error
        return [
            Line(choice["token_ids"], choice["logprobs"]["token_logprobs"])
            for choice in sorted(choices, key=lambda choice: choice["index"])
        ]

    def quick(self, method: str, path: str, body: Any = None) -> Any:
        """Make a request that samples nothing."""
        return self.call(method, path, body, timeout=QUICK)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Make a request that samples nothing, and repeat it until it is answered."""
        return self.insist(lambda: self.quick(method, path, body))

    def load(self, path: str, body: Any) -> None:
        """Make the server load weights.

        Raises:
            InputError: it cannot read or use them.
        """
        try:
            self.call("POST", path, body)
        except (Refused, Failed) as error:
            raise InputError(
                f"engine.urls {self.url} cannot load the policy's weights ({error}). Check that it can read "
                "engine.directory and was started with the policy's model, as `nrt-lightning serve` does."
            ) from error


ONE_TOKEN = {"max_tokens": 1, "temperature": 1.0, "logprobs": 0, "ignore_eos": True}
