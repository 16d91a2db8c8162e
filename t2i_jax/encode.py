"""Images -> token shards, once for a tokenizer and a data set."""

import re
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from t2i_jax import files, hosts, progress
from t2i_jax.data import sources, token_cache
from t2i_jax.data.token_cache import Tokens
from t2i_jax.errors import UserError
from t2i_jax.evals.tokens import baselines

BATCH = 256
SPLITS = ("train", "validation")
BASELINES = "baselines.json"


class Encoded(NamedTuple):
    """Tokens of a data set.

    Attributes:
      splits: "train" and "validation".
      baselines: of `evals.tokens.baselines`, of the one for the other.
      folder: where they lie.
    """

    splits: dict[str, Tokens]
    baselines: dict[str, float]
    folder: Path


def encode(config, tokenizer, run: str | Path) -> Encoded:
    """Open the tokens of a data set, made first where they are missing, or made of other images or captions.

    The first process of several encodes, the others wait for it. So does a second training for the first one.

    Args:
      config: of the translator; its `data` names the images, its `model` the shape of the tokens.
      tokenizer: a `t2i_jax.pipelines.Tokenizer`.
      run: its run folder; the tokens go into its folder `tokens`.

    Raises:
      UserError: the tokenizer's codebook or number of tokens does not fit the translator's config; the data set
        cannot be opened; or tokens are corrupt.
    """
    for field in ("codebook_size", "num_tokens"):
        ours, theirs = config.model[field], getattr(tokenizer, field)
        if ours != theirs:
            raise UserError(f"config.model.{field} is {ours}, but tokenizer {run} has {theirs}; make them equal")
    data, folder = config.data, Path(run) / "tokens" / _folder_name(config.data)
    if folder.exists() and not (data.get("source") or Path(data.data_dir).is_dir()):
        raise UserError(
            f"config.data.data_dir {data.data_dir} does not exist, so nothing says what the tokens in {folder} were"
            " made of; name the folder of the data, or make it to prepare the data again"
        )
    open_ = partial(_open, config, tokenizer, Path(run), folder)
    return hosts.on_first(open_) or open_()


def _folder_name(data) -> str:
    """The set's name, and splits of other names than the usual ones: a part of a split has tokens of its own."""
    parts = [data.name, *(data[split] for split in SPLITS if data[split] != split)]
    return re.sub(r"[^\w.+-]", lambda sign: "-" if sign[0] == "/" else "_", "-".join(parts))


def _open(config, tokenizer, run: Path, folder: Path) -> Encoded:
    data = config.data
    opened = {split: sources.open_split(data, data[split]) for split in SPLITS}
    stamps = {split: {"tokenizer": tokenizer.digest, "data": opened[split][1]} for split in SPLITS}
    size = config.model.codebook_size
    if encoded := _current(folder, stamps, size):
        return encoded
    with files.lock(run, wait=True):
        for split, stamp in stamps.items():
            reason = token_cache.stale(folder / split, **stamp)  # another process may have been faster
            if reason and reason != token_cache.MISSING:
                print(f"tokens in {folder / split} are {reason}: encoding again", file=sys.stderr)
            if reason:
                sources.check_size(opened[split][0], data)
                _encode_split(tokenizer, opened[split][0], folder / split, stamp)
        if encoded := _current(folder, stamps, size):
            return encoded
        splits = {split: Tokens(folder / split, **stamp) for split, stamp in stamps.items()}
        scores = baselines(splits["train"].ids(), splits["validation"].ids(), size)
        files.write_json(folder / BASELINES, {"made_of": _made_of(splits, size), "baselines": scores})
        return Encoded(splits, scores, folder)


def _current(folder: Path, stamps: dict[str, dict], codebook_size: int) -> Encoded | None:
    """What is there, if all of it is there and of these stamps."""
    if any(token_cache.stale(folder / split, **stamp) for split, stamp in stamps.items()):
        return None
    splits = {split: Tokens(folder / split, **stamp) for split, stamp in stamps.items()}
    path = folder / BASELINES
    try:
        content = files.read_json(path) if path.exists() else {}
    except files.CorruptError as error:
        print(f"warning: {error}; the baselines are counted again", file=sys.stderr)
        path.unlink(missing_ok=True)
        return None
    if content.get("made_of") != _made_of(splits, codebook_size):
        return None
    return Encoded(splits, content["baselines"], folder)


def _made_of(splits: dict[str, Tokens], codebook_size: int) -> dict:
    return {"codebook_size": codebook_size, **{split: opened.checksum for split, opened in splits.items()}}


def _encode_split(tokenizer, dataset, folder: Path, stamp: dict[str, str]) -> None:
    with progress.bar(total=len(dataset), desc=f"encoding {folder.name}", unit="pictures") as bar:
        token_cache.write_tokens(folder, _tokens(tokenizer, dataset, bar), **stamp)


def _tokens(tokenizer, dataset, bar: tqdm):
    for start in range(0, len(dataset), BATCH):
        rows = [dataset[i] for i in range(start, min(start + BATCH, len(dataset)))]
        ids = tokenizer.tokenize(np.stack([row["image"] for row in rows]))
        for row, row_ids in zip(rows, ids, strict=True):
            captions = row["captions"] if "captions" in row else [row["caption"]]
            yield row_ids, [caption.decode() for caption in captions]
        bar.update(len(rows))
