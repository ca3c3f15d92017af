"""Configs of the package, by name: listed, read by every command, and part of the wheel."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from installed import build_wheel, install

from cli.small_runs import SMALL
from nrt_lightning import InputError
from nrt_lightning.cli.main import run
from nrt_lightning.configs import FOLDER, names, resolve, summary
from nrt_lightning.tools.comparison import Comparison

ROOT = Path(__file__).parents[2]


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as caught:
        run([*args, "--print_config"])
    assert caught.value.code in (0, None)
    return capsys.readouterr().out


def test_the_folder_beside_the_package_is_the_one_in_it() -> None:
    assert (ROOT / "configs").is_symlink()
    assert (ROOT / "configs").resolve() == FOLDER


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "plan", "preflight", "serve"])
def test_every_command_reads_configs_by_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, command, "--config", "nrt:quickstart", "--config=nrt:methods/nrt_gm")
    found = yaml.safe_load(out)
    assert found["model"]["init_args"]["aggregator"]["class_path"] == "nrt_lightning.GeometricMean"
    assert found["data"]["init_args"]["max_prompt_tokens"] == 64


def test_a_comparison_is_named_and_names_configs(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "compare", "--config", "nrt:comparisons/methods", "--config", "nrt:comparisons/reports")
    comparison = Comparison(**yaml.safe_load(out.partition("jobs:")[0]))
    arguments = comparison.runs[0].arguments
    assert arguments[1:3] == ("--config", "nrt:quickstart"), "the path of this machine is in no fingerprint"
    assert comparison.runs[0].fingerprint
    with pytest.raises(InputError, match=r"methods.gm: 'nrt:methods/nrt_gn'.*'nrt:methods/nrt_gm'"):
        Comparison(["nrt:quickstart"], {"gm": ["nrt:methods/nrt_gn"]})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nrt:quikstart", "'nrt:quickstart'"),
        ("nrt:nrt_gm", "'nrt:methods/nrt_gm'"),
        ("nrt:methods/nrt_gn.yaml", "'nrt:methods/nrt_gm'"),
        ("nrt:../pyproject", "lists all"),
        ("nrt:", "lists all"),
    ],
)
def test_a_name_that_does_not_exist(name: str, meant: str) -> None:
    with pytest.raises(InputError, match=re.escape(repr(name)) + ".*" + re.escape(meant)):
        run(["fit", "--config", name])


def test_only_the_values_of_config_are_names() -> None:
    assert resolve("./nrt:quickstart") == "./nrt:quickstart"
    assert resolve("nrt:methods/nrt_gm.yaml") == str(FOLDER / "methods" / "nrt_gm.yaml")


def test_the_list_has_every_config_with_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    run(["configs"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"nrt:{name}" for name in names()]
    assert len(names()) == len(list(FOLDER.rglob("*.yaml")))
    assert [name for name in names() if len(summary(name)) < 10] == []
    assert max(map(len, lines)) <= 120


def test_one_config_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("quickstart", "nrt:quickstart"):
        run(["configs", name])
        assert capsys.readouterr().out == (FOLDER / "quickstart.yaml").read_text()


def test_extras_that_pages_name_exist() -> None:
    known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *FOLDER.rglob("*.yaml")]
    named = {extra for page in pages for extra in re.findall(r"nrt-lightning\[(\w+)\]", page.read_text())}
    assert named
    assert named <= known


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    return build_wheel(tmp_path_factory.mktemp("built"))


def test_the_wheel_has_all_files_of_the_package(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = {path for path in (ROOT / "nrt_lightning").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {str(path.relative_to(ROOT)) for path in files} - packed == set()


def test_every_link_of_the_description_works_outside_of_the_checkout(wheel: Path) -> None:
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    description = zipfile.ZipFile(wheel).read(metadata).decode()
    targets = re.findall(r"\]\(([^)]*)\)", description)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "Your first hour (`docs/first_hour.md`)" in description


@pytest.mark.slow
def test_the_wheel_works_outside_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    commands, site = install(wheel, tmp_path / "venv")
    folder = tmp_path / "empty"
    folder.mkdir()
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def command(*words: str) -> str:
        words = (str(commands / "nrt-lightning"), *words)
        done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import nrt_lightning; print(nrt_lightning.__file__)"
    where = subprocess.run([commands / "python", "-c", code], cwd=folder,
                           env=variables, capture_output=True, text=True, check=True)  # fmt: skip
    assert where.stdout.startswith(str(site))
    assert "nrt:methods/nrt_gm" in command("configs")
    assert command("--version").startswith("nrt-lightning ")
    (folder / "small.yaml").write_text(SMALL)
    command("fit", "--config", "nrt:quickstart", "--config", "nrt:methods/nrt_gm", "--config", "small.yaml")
    (folder / "comparison.yaml").write_text(
        "configs: [nrt:quickstart, small.yaml]\nmethods: {gm: [nrt:methods/nrt_gm]}\nseeds: [0]\ndirectory: compared\n"
    )
    assert "gm" in command("compare", "--config", "comparison.yaml", "--plot=false")
