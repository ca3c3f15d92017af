"""`nrt-lightning export`: convert a checkpoint to a directory for other libraries."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.cli.trained import find_trained, read_trained, split_options
from nrt_lightning.errors import InputError
from nrt_lightning.export import ExportForm, check_target, export_policy
from nrt_lightning.export.base_facts import CARD, front_matter
from nrt_lightning.export.hub import Hub


def export(
    checkpoint: str | None = None,
    out: str | None = None,
    form: ExportForm | None = None,
    base: str | None = None,
    push_to_hub: str | None = None,
    run: Sequence[str] = (),
    *,
    overwrite: bool = False,
    private: bool = False,
    allow: list[str] | str = "",
    trust_remote_code: bool = False,
) -> Path | None:
    """Write the policy of a checkpoint to a Hugging Face directory.

    Args:
        checkpoint: checkpoint of `nrt-lightning fit`: a file, a directory if it is sharded, or `auto`, `best` or `last`
            of the run that --config names; null for its best.
        out: directory to write; must be empty or missing. Null with `push_to_hub` for none.
        form: weights to write: `WholeModel`, `AdapterFiles` or `Merged`; null for `Merged` if there is an adapter and
            `WholeModel` otherwise.
        base: model that the run started from, if it has moved.
        push_to_hub: OWNER/NAME of a model repository on the Hugging Face hub, to which the directory is uploaded. The
            token is read from the environment variable HF_TOKEN.
        run: options of `fit` that name the run.
        overwrite: replace the contents of the directory, and of the repository.
        private: create the repository as a private one.
        allow: import paths of classes of yours that the checkpoint's settings may build, separated by commas. Others
            than those of nrt_lightning and torch.optim are refused, because building them runs their code.
        trust_remote_code: run code that comes with the base. The checkpoint's own setting does not count.

    Raises:
        InputError: the checkpoint is missing or has no settings, the base is missing or a different model, the
            directory is not empty, the policy does not support the form, or the hub refuses the upload.
    """
    if out is None and push_to_hub is None:
        raise InputError("export: neither --out nor --push_to_hub is given. Give --out=DIRECTORY.")
    if private and push_to_hub is None:
        raise InputError("export: --private=true without --push_to_hub. Give --push_to_hub=OWNER/NAME.")
    if out is not None:
        check_target(Path(out).expanduser().absolute(), overwrite=overwrite)
    hub = None if push_to_hub is None else Hub(push_to_hub, private=private, overwrite=overwrite)
    path = find_trained(checkpoint, run)
    if path is None:
        raise InputError("export: no --checkpoint. Give its path, or --config=FILE of the run for its best checkpoint.")
    trained = read_trained(path, base, allow, trust_remote_code=trust_remote_code)
    if form is not None:
        form.check(trained.policy)
    address = None if hub is None else hub.create()
    policy = trained.load()
    with tempfile.TemporaryDirectory() as temporary:
        directory = export_policy(policy, out or f"{temporary}/model", form, trained.record, overwrite=overwrite)
        if out is not None:
            print(f"written to {directory}")
        if hub is not None:
            hub.upload(directory)
            print(f"uploaded to {address}")
            if "license" not in front_matter(directory / CARD):
                print("The card names no license, because that of the base is not known. Add it on the hub.")
    return None if out is None else directory


def main(args: list[str]) -> None:
    """Run the command.

    Args:
        args: options of the command, and those of `fit` that name a run.
    """
    own, run = split_options(args)
    parser = PlainParser(prog="nrt-lightning export", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", action="config", help="configs of the run, as for fit; --trainer... change them")
    parser.add_function_arguments(export, skip={"run"})
    settings = parser.instantiate(parser.parse_args(own))
    settings.pop("config", None)
    export(**settings.as_dict(), run=run)
