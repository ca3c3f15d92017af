"""`nrt-lightning serve`, with a stand-in for the Python that has vLLM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nrt_lightning import InputError, Policy
from nrt_lightning.cli.commands.serve import ServeCLI, server_of
from nrt_lightning.cli.lightning_cli import make_cli
from nrt_lightning.cli.main import run
from nrt_lightning.rollouts.remote.connection import Connection, Unreachable
from nrt_lightning.rollouts.vllm.environment import vllm_python
from nrt_lightning.rollouts.vllm.serving import ServerProcess, ServerSettings, as_text

CONFIGS = Path(__file__).parents[2] / "configs"
QUICKSTART = ["--config", str(CONFIGS / "quickstart.yaml")]
LORA = ["--config", str(CONFIGS / "models" / "tiny_lora.yaml")]
STAND_IN = """#!{python}
import http.server, os, sys
if "--fail" in sys.argv: sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
open({out!r}, "w").write(" ".join(sys.argv[1:]) + "|" + os.environ.get("VLLM_API_KEY", "none"))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Path:
    """A Python that listens as a server would, and writes down how it was called."""
    path = tmp_path / "python"
    path.write_text(STAND_IN.format(python=sys.executable, out=str(tmp_path / "called")))
    path.chmod(0o755)
    monkeypatch.setenv("VLLM_PYTHON", str(path))
    monkeypatch.chdir(tmp_path)
    return path


def made(*options: str) -> ServerProcess:
    return server_of(make_cli(ServeCLI, [*QUICKSTART, *options], run=False))


def option(process: ServerProcess, name: str) -> str:
    return process.command[process.command.index(name) + 1]


def test_what_is_served_is_the_policys_model_with_its_marker(stand_in, tmp_path):
    process = made("--trainer.default_root_dir", str(tmp_path / "run"))
    directory = tmp_path / "run" / "served"
    assert option(process, "--model") == str(directory)
    policy = Policy("embedded:registers-base").load().eval()
    served, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    assert tokenizer("<|response_start|>", add_special_tokens=False)["input_ids"] == [policy.markup.marker_ids[0]]
    ids = torch.tensor([[1, 10, 11, policy.markup.marker_ids[0]]])
    with torch.no_grad():
        assert torch.equal(served.eval()(ids).logits, policy.network(ids).logits)
    assert served.config.tie_word_embeddings is torch.cuda.is_available()
    assert option(process, "--dtype") == "float32"
    assert option(process, "--max-model-len") == str(64 + 32 + 1 + 16)  # prompt, trace, marker, answer
    assert option(process, "--host") == "127.0.0.1"
    assert option(process, "--logprobs-mode") == "processed_logprobs"
    assert "--enable-lora" not in process.command


def test_an_adapter_that_is_sent_alone_finds_room_and_its_base(stand_in, tmp_path):
    options = [*LORA, "--trainer.default_root_dir", str(tmp_path)]
    assert "--enable-lora" not in made(*options).command  # it has rows of the marker and goes merged
    process = made(*options, "--model.policy.init_args.adapter.marker_rows=false",
                   "--model.policy.init_args.adapter.rank=12")  # fmt: skip
    assert option(process, "--max-lora-rank") == "16"
    assert Policy(str(tmp_path / "served")).load().marker_is_new is False


def test_half_precision_follows_the_trainers(stand_in, tmp_path):
    options = ["--trainer.default_root_dir", str(tmp_path), "--serve.arguments=[--seed, '3']"]
    assert option(made(*options, "--trainer.precision=bf16-mixed"), "--dtype") == "bfloat16"
    process = made(
        *options, "--serve.dtype=float16", "--serve.max_model_len=77", "--serve.directory", str(tmp_path / "d")
    )
    assert [option(process, name) for name in ("--dtype", "--max-model-len", "--seed")] == ["float16", "77", "3"]
    assert (tmp_path / "d" / "config.json").is_file()


def test_a_server_is_started_and_stopped_with_its_token(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    serve = ServerSettings(port=18763, token_variable="MY_TOKEN")
    with ServerProcess("model", serve, log=tmp_path / "log") as process:
        assert Connection(serve.url).call("GET", "/health") == ""
        pid = process.process.pid
    with pytest.raises(Unreachable):
        Connection(serve.url).call("GET", "/health")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (tmp_path / "called").read_text().endswith("|secret")
    assert "secret" not in as_text(process.command, process.variables, serve)


def test_the_command_is_printed_and_ends_with_the_server(stand_in, tmp_path, capsys):
    with pytest.raises(InputError, match=r"\b3\b"):
        run(["serve", *QUICKSTART, "--trainer.default_root_dir", str(tmp_path), "--serve.arguments=[--fail]"])
    said = capsys.readouterr().out
    assert f"{stand_in} -m vllm.entrypoints.openai.api_server --model {tmp_path / 'served'}" in said
    assert "VLLM_SERVER_DEV_MODE=1" in said


@pytest.mark.parametrize("sign", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_the_server_ends_with_the_command(stand_in, tmp_path, sign):
    """Also where the command is a background job, which ignores interrupts."""
    command = [sys.executable, "-m", "nrt_lightning", "serve", *QUICKSTART, "--serve.port=18764"]
    command += [f"--trainer.default_root_dir={tmp_path}"]
    root = str(Path(__file__).parents[2])
    serve = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert any(line.startswith("ready") for line in serve.stdout)
    serve.send_signal(sign)
    assert serve.communicate(timeout=60)[0].endswith("stopped\n")
    assert serve.returncode == 0
    with pytest.raises(Unreachable):
        Connection("http://127.0.0.1:18764").call("GET", "/health")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.7", "gpu-box"])
def test_an_address_that_others_reach_needs_a_second_setting_and_a_token(monkeypatch, host):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    with pytest.raises(InputError, match=rf"serve.host '{host}'.*serve.reachable_by_others"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, reachable_by_others=True).host == host
    monkeypatch.delenv("VLLM_API_KEY")
    with pytest.raises(InputError, match=rf"serve.host '{host}'.*VLLM_API_KEY"):
        ServerSettings(host=host, reachable_by_others=True)
    assert ServerSettings(host="localhost").url == "http://localhost:8000"


@pytest.mark.parametrize("arguments", [["--host", "0.0.0.0"], ["--host=0.0.0.0"], ["--hos", "0.0.0.0"], ["--port=1"]])
def test_arguments_of_the_server_do_not_change_its_address(arguments):
    with pytest.raises(InputError, match=rf"serve.arguments.*{arguments[0]}"):
        ServerSettings(arguments=arguments)


def test_vllm_is_found_by_a_variable_then_beside_then_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VLLM_PYTHON", raising=False)
    monkeypatch.setattr("nrt_lightning.rollouts.vllm.environment.find_spec", lambda name: None)
    with pytest.raises(InputError, match="VLLM_PYTHON"):
        vllm_python()
    beside = tmp_path / ".venv-vllm" / "bin" / "python"
    beside.parent.mkdir(parents=True)
    beside.touch()
    assert vllm_python() == str(beside)
    monkeypatch.setenv("VLLM_PYTHON", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        vllm_python()
    assert vllm_python(str(beside)) == str(beside)
