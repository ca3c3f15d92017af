"""Upload to a hub that is made up, and what a model card says of the base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml
from tiny import BASE, save_tiny

from nrt_lightning import AdapterFiles, InputError, LoRA, Policy, export_policy
from nrt_lightning.export import RunRecord
from nrt_lightning.export.base_facts import base_facts, front_matter
from nrt_lightning.export.hub import Hub


class Refused(Exception):
    """An error of the hub."""

    def __init__(self, status: int) -> None:
        super().__init__("Client error\n\nwith many\nlines")
        self.response = SimpleNamespace(status_code=status)


class ConnectError(Exception):
    """As of httpx."""


class FakeHub:
    """Repositories in memory."""

    repos: ClassVar[dict[str, dict[str, Any]]] = {}
    fails: Exception | None = None
    tokens: ClassVar[list[str | None]] = []

    def __init__(self, token: str | None = None, **settings: Any) -> None:
        self.tokens.append(token)

    def create_repo(self, name: str, *, repo_type: str, private: bool | None, exist_ok: bool) -> str:
        if self.fails is not None:
            raise self.fails
        if name in self.repos and not exist_ok:
            raise Refused(409)
        self.repos.setdefault(name, {"private": bool(private), "files": {}})
        return f"https://hub.example/{name}"

    def repo_info(self, name: str, *, repo_type: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.repos[name]["private"])

    def upload_folder(
        self, *, repo_id: str, folder_path: str, repo_type: str, commit_message: str, delete_patterns: str | None
    ) -> None:
        files = self.repos[repo_id]["files"]
        if delete_patterns == "*":
            files.clear()
        files |= {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "repos", {})
    monkeypatch.setattr(FakeHub, "tokens", [])
    monkeypatch.setattr(FakeHub, "fails", None)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    return FakeHub


def folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_folder_is_uploaded_with_the_token_of_the_environment(hub: type[FakeHub], tmp_path: Path) -> None:
    mine = Hub("me/model", private=True)
    assert mine.create() == "https://hub.example/me/model"
    mine.upload(folder(tmp_path, "a", "b"))
    assert hub.repos == {"me/model": {"private": True, "files": {"a": b"a", "b": b"b"}}}
    assert set(hub.tokens) == {"hf_of_the_environment"}


def test_a_repository_that_exists_is_kept_unless_overwrite(hub: type[FakeHub], tmp_path: Path) -> None:
    hub.repos["me/model"] = {"private": False, "files": {"old": b""}}
    with pytest.raises(InputError, match=r"push_to_hub='me/model'.*exists.*overwrite"):
        Hub("me/model").create()
    with pytest.raises(InputError, match=r"is public, but private"):
        Hub("me/model", private=True, overwrite=True).create()
    mine = Hub("me/model", overwrite=True)
    mine.create()
    mine.upload(folder(tmp_path, "new"))
    assert hub.repos["me/model"]["files"] == {"new": b"new"}


@pytest.mark.parametrize(
    ("error", "words"),
    [(Refused(401), "does not accept the token"), (Refused(403), "may not write"), (Refused(500), "Client error with"),
     (ConnectError("no route"), r"cannot be reached \(no route\)"), (TimeoutError(), "TimeoutError"),
     (ConnectionError("offline"), "cannot be reached")],
)  # fmt: skip
def test_errors_of_the_hub_are_one_line(hub: type[FakeHub], error: Exception, words: str) -> None:
    hub.fails = error
    with pytest.raises(InputError, match=words) as caught:
        Hub("me/model").create()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("push_to_hub='me/model': ")


@pytest.mark.parametrize("token", [None, "", " "])
def test_without_a_token_nothing_is_tried(
    hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=r"'me/model': no token.*HF_TOKEN"):
        Hub("me/model").create()
    assert hub.tokens == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("model", "no owner. Give OWNER/model"), ("a/b/c", "'a/b/c' is no name"), ("me/", "'me/'"), ("", "''"),
     ("me/ä", "'me/ä'"), ("./model", r"'\./model'")],
)  # fmt: skip
def test_names_that_no_repository_has(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Hub(name)
    assert "\n" not in str(caught.value)


# The card


def card(directory: Path) -> dict[str, Any]:
    return front_matter(directory / "README.md")


def base_with(tmp_path: Path, text: str | None) -> str:
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    if text is not None:
        (base / "README.md").write_text(text, encoding="utf-8")
    return str(base)


OF_META = """---
language: en
license: llama3.2
license_name: Llama
license_link: https://example.org/license
base_model: meta-llama/Llama-3.2-1B
---
# It
"""


def test_the_card_names_the_base_and_license_of_the_bases_card(tmp_path: Path) -> None:
    policy = Policy(base_with(tmp_path, OF_META)).load()
    found = card(export_policy(policy, tmp_path / "m"))
    assert found["base_model"] == "meta-llama/Llama-3.2-1B"
    assert found["base_model_relation"] == "finetune"
    assert found["license"] == "llama3.2"
    assert found["license_name"] == "Llama"
    assert found["license_link"] == "https://example.org/license"
    assert found["library_name"] == "transformers"
    assert {"nrt-lightning", "reasoning"} <= set(found["tags"])
    title = (tmp_path / "m" / "README.md").read_text().partition("# ")[2].partition("\n")[0]
    assert title == "base, trained to reason", "no path of this machine"


def test_an_adapter_is_one(tmp_path: Path) -> None:
    base = base_with(tmp_path, OF_META)
    policy = Policy(base, adapter=LoRA(rank=2)).load()
    found = card(export_policy(policy, tmp_path / "a", AdapterFiles()))
    assert (found["base_model_relation"], found["library_name"]) == ("adapter", "peft")
    merged = card(export_policy(policy, tmp_path / "m"))
    assert (merged["base_model_relation"], merged["library_name"]) == ("finetune", "transformers")


@pytest.mark.parametrize("text", [None, "# no front matter", "---\n[broken\n---\n", "---\n- a list\n---\n",
                                  "---\nlicense: {a: 1}\nbase_model: [a/b, c/d]\n---\n"])  # fmt: skip
def test_what_is_not_known_is_left_out(tmp_path: Path, text: str | None) -> None:
    found = card(export_policy(Policy(base_with(tmp_path, text)).load(), tmp_path / "m"))
    assert not {"license", "base_model", "base_model_relation"} & set(found)


def test_a_base_of_the_package_or_of_random_weights_is_none_of_the_hub(tmp_path: Path) -> None:
    assert base_facts(Policy("embedded:registers-base").load()) == {}
    assert base_facts(Policy(base_with(tmp_path, OF_META), weights="random").load()) == {}
    policy = Policy("embedded:registers-base").load()
    policy.network.config._name_or_path = policy.network.name_or_path = ""
    live = Policy(policy.network, tokenizer=policy.tokenizer)
    assert base_facts(live) == {}


def test_a_base_in_the_cache_of_the_hub_has_its_name(tmp_path: Path) -> None:
    there = tmp_path / "models--tiny-org--tiny" / "snapshots" / "0123"
    save_tiny(there, "llama")
    (there / "README.md").write_text("---\nlicense: mit\n---\n")
    assert base_facts(Policy(str(there)).load()) == {"base_model": "tiny-org/tiny", "license": "mit"}


def test_the_facts_of_a_hub_id_are_those_of_its_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE.txt\n---\n")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: str(tmp_path / "README.md"))
    policy = Policy("embedded:registers-base").load()
    policy.source = "org/name"
    assert base_facts(policy) == {
        "base_model": "org/name", "license": "other", "license_name": "own",
        "license_link": "https://huggingface.co/org/name/blob/main/LICENSE.txt",
    }  # fmt: skip

    def offline(*args: Any, **settings: Any) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    assert base_facts(policy) == {"base_model": "org/name"}


def test_a_policy_without_traces_has_a_card_that_says_so(tmp_path: Path) -> None:
    policy = Policy("embedded:registers-base").load()
    directory = export_policy(policy, tmp_path / "m", record=RunRecord(limits={"max_answer_tokens": 9}))
    text = (directory / "README.md").read_text()
    assert "right after the question" in text
    assert "trace of reasoning" not in text
    assert yaml.safe_load(text.split("---")[1])["tags"] == ["nrt-lightning", "sft"]
    assert json.loads((directory / "nrt_lightning.json").read_text())["limits"] == {"max_answer_tokens": 9}
