"""Pixels -> token shards, once."""

import re
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from t2i_jax import files
from t2i_jax.data import pipeline, token_cache
from t2i_jax.errors import UserError

BATCH = 256
SPLITS = ("train", "validation")


def encode(config, tokenizer, run: str | Path) -> Path:
    """Make the token cache of a data set where it is missing.

    Args:
      config: of the translator; its `data` names the pictures, its `model` the shape of the tokens.
      tokenizer: a `t2i_jax.pipelines.Tokenizer`.
      run: its run folder; the cache goes into its folder `tokens`.

    Returns:
      The folder that holds one cache a split.

    Raises:
      UserError: the tokenizer's codebook or number of tokens does not fit the translator's config.
    """
    for field in ("codebook_size", "num_tokens"):
        ours, theirs = config.model[field], getattr(tokenizer, field)
        if ours != theirs:
            raise UserError(f"config.model.{field} is {ours}, but tokenizer {run} has {theirs}; make them equal")
    folder = Path(run) / "tokens" / _folder_name(config.data)
    if _missing(folder):
        with files.lock(run):
            _encode_splits(config, tokenizer, folder)
    return folder


def _folder_name(data) -> str:
    """The set's name, and splits of other names than the usual ones: a part of a split has tokens of its own."""
    parts = [data.name, *(data[split] for split in SPLITS if data[split] != split)]
    return re.sub(r"[^\w.+-]", lambda sign: "-" if sign[0] == "/" else "_", "-".join(parts))


def _missing(folder: Path) -> list[str]:
    return [split for split in SPLITS if not (folder / split).is_dir()]


def _encode_splits(config, tokenizer, folder: Path) -> None:
    data = config.data
    for split in _missing(folder):  # another process may have made some before this one had the lock
        dataset = pipeline.open_split(data.name, data.data_dir, data[split], data.damaged)
        with tqdm(total=len(dataset), desc=f"encoding {split}", unit="pictures", file=sys.stderr) as bar:
            token_cache.write_tokens(folder / split, _tokens(tokenizer, dataset, bar), tokenizer.digest)


def _tokens(tokenizer, dataset, bar: tqdm):
    for start in range(0, len(dataset), BATCH):
        rows = [dataset[i] for i in range(start, min(start + BATCH, len(dataset)))]
        ids = tokenizer.tokenize(np.stack([row["image"] for row in rows]))
        for row, row_ids in zip(rows, ids, strict=True):
            captions = row["captions"] if "captions" in row else [row["caption"]]
            yield row_ids, [caption.decode() for caption in captions]
        bar.update(len(rows))
