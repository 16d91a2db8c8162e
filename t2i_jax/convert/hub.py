"""Files of released models: from a folder, from the hub's cache on this machine, or downloaded."""

from collections.abc import Callable, Sequence
from pathlib import Path

import ml_dtypes  # noqa: F401, by which numpy, and safetensors with it, knows bfloat16
import numpy as np
import safetensors

from t2i_jax.errors import UserError, one_line

TIMEOUT = 10  # seconds the hub may take to answer


def find(name_or_folder: str | Path, filenames: Sequence[str] = ("model.safetensors",)) -> Path:
    """Where a released model's file lies on this machine, once this returns.

    Args:
      name_or_folder: a folder that holds the file, the file itself, or the name of a repository on
        huggingface.co ("microsoft/resnet-50"). A name is looked up in the hub's cache first, and downloaded into
        it if it is not there; whoever wants a newer version deletes it from there.
      filenames: its names in the folder or repository; the first that is there is taken.

    Raises:
      UserError: the folder holds no such file, or the hub cannot be reached or has no such file; it says which
        file to fetch and where to put it.
    """
    if found := find_here(name_or_folder, filenames):
        return found
    import huggingface_hub  # a third of a second
    from huggingface_hub.errors import EntryNotFoundError

    name, problem = str(name_or_folder), None
    urls = [huggingface_hub.hf_hub_url(name, filename) for filename in filenames]
    for filename, url in zip(filenames, urls, strict=True):
        try:
            # Asked once beforehand: without a network, the download itself would try again for minutes.
            huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT)
            return Path(huggingface_hub.hf_hub_download(name, filename))
        except Exception as error:  # of the hub, of its HTTP client, of the disk: there is no common base
            problem = problem or error
            if not isinstance(error, EntryNotFoundError):
                break
    reason = f"{type(problem).__name__}: {one_line(problem)}"
    raise UserError(
        f"{name} is no folder here, and its {filenames[0]} could not be fetched ({reason}); download {urls[0]}"
        " where there is a network, put it into a folder, and name that folder instead"
    )


def find_here(name_or_folder: str | Path, filenames: Sequence[str]) -> Path | None:
    """As `find`, where nothing would have to be fetched; None elsewhere.

    Raises:
      UserError: the folder holds no such file, or there is no such folder and no model can have that name.
    """
    path = Path(name_or_folder)
    if path.is_dir():
        found = [path / filename for filename in filenames if (path / filename).is_file()]
        if not found:
            names = " or ".join(filenames)
            raise UserError(f"folder {path} holds no {names}; put the file there, or name another folder")
        return found[0]
    if path.is_file():
        return path
    import huggingface_hub  # a third of a second
    from huggingface_hub.errors import HFValidationError

    try:
        cached = (huggingface_hub.try_to_load_from_cache(str(name_or_folder), filename) for filename in filenames)
        return next((Path(file) for file in cached if isinstance(file, str)), None)
    except HFValidationError:
        raise UserError(
            f"{path} is neither a folder here nor the name of a model on huggingface.co; name one of the two"
        ) from None


def find_beside(name_or_folder: str | Path, filenames: Sequence[str], look: Callable = find) -> Path | None:
    """As `find` or `find_here`, of a file that lies beside weights where these are named by their own file."""
    path = Path(name_or_folder)
    return look(path.parent if path.is_file() else name_or_folder, filenames)


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
