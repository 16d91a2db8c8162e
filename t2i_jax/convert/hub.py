"""Files of released models: from a folder, from the hub's cache on this machine, or downloaded."""

from pathlib import Path

import numpy as np
import safetensors

from t2i_jax.errors import UserError

TIMEOUT = 10  # seconds the hub may take to answer


def find(name_or_folder: str | Path, filename: str = "model.safetensors") -> Path:
    """Where a released model's file lies on this machine, once this returns.

    Args:
      name_or_folder: a folder that holds the file, the file itself, or the name of a repository on
        huggingface.co ("microsoft/resnet-50"). A name is looked up in the hub's cache first, and downloaded into
        it if it is not there; whoever wants a newer version deletes it from there.
      filename: its name in the folder or repository.

    Raises:
      UserError: the folder holds no such file, or the hub cannot be reached or has no such file; it says which
        file to fetch and where to put it.
    """
    import huggingface_hub  # a third of a second
    from huggingface_hub.errors import HFValidationError

    name, path = str(name_or_folder), Path(name_or_folder)
    if path.is_dir():
        path = path / filename
        if not path.is_file():
            raise UserError(f"folder {path.parent} holds no {filename}; put the file there, or name another folder")
    if path.is_file():
        return path
    try:
        url = huggingface_hub.hf_hub_url(name, filename)
    except HFValidationError:
        raise UserError(
            f"{name} is neither a folder here nor the name of a model on huggingface.co; name one of the two"
        ) from None
    cached = huggingface_hub.try_to_load_from_cache(name, filename)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # Asked once beforehand: without a network, the download itself would try again for minutes.
        huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT)
        return Path(huggingface_hub.hf_hub_download(name, filename))
    except Exception as error:  # of the hub, of its HTTP client, of the disk: there is no common base
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{name} is no folder here, and its {filename} could not be fetched ({type(error).__name__}: {reason});"
            f" download {url} where there is a network, put it into a folder, and name that folder instead"
        ) from None


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file, by name.

    Raises:
      UserError: it is cut short, or no safetensors file.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged, cut short or no safetensors file ({error}); fetch it again") from None
