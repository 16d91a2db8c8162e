"""Released models and runs: from a folder, from the hub's cache on this machine, or downloaded; and uploads."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_dtypes  # noqa: F401, by which numpy, and safetensors with it, knows bfloat16
import numpy as np
import safetensors

from t2i_jax.errors import UserError, one_line

TIMEOUT = 10  # seconds the hub may take to answer
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
READ = ("config.json", "model.safetensors", "scores.json", "text_tokenizer.json")  # of a run; nothing that is run


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
        if is_path(str(name_or_folder)):
            raise HFValidationError
        cached = (huggingface_hub.try_to_load_from_cache(str(name_or_folder), filename) for filename in filenames)
        return next((Path(file) for file in cached if isinstance(file, str)), None)
    except HFValidationError:
        raise UserError(
            f"{path} is neither a folder here nor the name of a model on huggingface.co; name one of the two"
        ) from None


def is_path(name: str) -> bool:
    """Whether a name can only mean a place on this machine: its first part is here."""
    first, slash, _ = name.partition("/")
    return bool(slash) and Path(first).exists()


def find_run(name_or_folder: str | Path) -> Path:
    """Where a run lies on this machine, once this returns.

    Args:
      name_or_folder: a folder; or `OWNER/NAME`, of a repository on huggingface.co, with `@REVISION` behind it where
        `main` is not meant, unless there is a folder OWNER here. The hub's cache comes first, as in `find`. JSON
        and safetensors alone are fetched.

    Returns:
      The folder; a path that does not exist, as it was given.

    Raises:
      UserError: the hub cannot be reached, or has no such repository or revision.
    """
    path = Path(name_or_folder)
    name, _, revision = str(name_or_folder).partition("@")
    if path.is_dir() or not NAME.fullmatch(name) or is_path(name):
        return path
    import huggingface_hub  # a third of a second
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fetch(**options):
        patterns = [f"{folder}{file}" for folder in ("", "parents/*/") for file in READ]
        return huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=patterns, **options
        )

    try:
        try:
            return Path(fetch(local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(fetch(etag_timeout=TIMEOUT))
    except Exception as error:  # see `find`
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"{name_or_folder} is no folder here, and could not be fetched from huggingface.co ({reason}); check"
            " the name, and log in (hf auth login) where it is private"
        ) from None


def check_upload(name: str) -> None:
    """What can be known of an upload before anything is made for it.

    Raises:
      UserError: no name that a repository can have, or no token.
    """
    import huggingface_hub

    if NAME.fullmatch(name) is None:
        raise UserError(f"{name!r} is no name on huggingface.co; give OWNER/NAME")
    if huggingface_hub.get_token() is None:
        raise UserError("there is no token for huggingface.co; log in (hf auth login), or set HF_TOKEN")


def upload(folder: Path, name: str, *, private: bool = False) -> str:
    """Put a folder into a new repository on huggingface.co.

    Args:
      folder: all of whose files are uploaded.
      name: `OWNER/NAME`.
      private: whether others may not see it.

    Returns:
      Its address.

    Raises:
      UserError: there is one already, it cannot be made, or the upload fails.
    """
    import huggingface_hub

    api, doing = huggingface_hub.HfApi(), "made"
    try:
        address = api.create_repo(name, private=private)
        doing = "filled"
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="t2i export")
    except Exception as error:  # see `find`
        taken = getattr(getattr(error, "response", None), "status_code", None) == 409
        reason = "there is one already" if taken else f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"repository {name} could not be {doing} ({reason}); {folder} stands, and"
            f" `hf upload {name} {folder}` puts it into a repository, an old one too"
        ) from None
    return str(address)


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
