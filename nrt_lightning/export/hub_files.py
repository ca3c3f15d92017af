"""Small files of models on the Hugging Face hub, read where that costs no long wait."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub

SECONDS = 5.0  # to wait for the hub


def file_on_hub(name: str, file: str, revision: str | None = None) -> Path | None:
    """A file of a model: from the cache, or else from the hub if it can be reached. None if there is no such file.

    Args:
        name: id of the model.
        file: path in its repository.
        revision: branch, tag or commit; None for the newest.
    """
    try:
        cached = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        found = huggingface_hub.HfApi().model_info(name, revision=revision, timeout=SECONDS)  # downloads try for longer
        if file not in {sibling.rfilename for sibling in found.siblings or ()}:
            return None
        return Path(huggingface_hub.hf_hub_download(name, file, revision=revision))
    except Exception:  # of several libraries and versions
        return None
