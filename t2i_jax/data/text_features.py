"""What a frozen text encoder makes of captions: written once for each distinct one, looked up by its ids.

features.bin    the encoder's outputs [T, D] where word pieces stand, caption after caption, without padding
keys.npy        a digest of the ids of each caption, sorted
starts.npy      where in the first file each of those captions begins
digests.json    the sha256 of these, of which weights and captions they were made, shape and type of the first
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import ml_dtypes  # noqa: F401, numpy reads bfloat16 by it
import numpy as np
from jaxtyping import Bool, Int, Shaped

from t2i_jax import files
from t2i_jax.errors import UserError

FEATURES, KEYS, STARTS = "features.bin", "keys.npy", "starts.npy"
MISSING = "missing"
CHUNK = 512  # distinct captions that are held at a time


def write_features(
    folder: str | Path,
    rows: Iterable[tuple[np.ndarray, np.ndarray]],
    encode: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    encoder: str,
    captions: str,
) -> None:
    """Encode every distinct caption once; the folder appears under its name only when all of it is written.

    Args:
      folder: where the features go; what stands there is replaced.
      rows: ids [S] and mask [S] of each caption, as often as it occurs.
      encode: ids [B, S] and masks [B, S] to outputs [B, S, D].
      encoder: digest of the encoder's weights.
      captions: digest of what `rows` follow from.

    Raises:
      UserError: there is no caption.
      OSError: the disk is full or read-only.
    """
    with files.replacing(folder) as partial:
        keys, starts, written = [], [], 0
        with (partial / FEATURES).open("wb") as file:
            for chunk_keys, ids, masks in _distinct(rows):
                features, lengths = encode(ids, masks), masks.sum(1)
                file.write(np.ascontiguousarray(features[masks]).view(np.uint8))
                keys += chunk_keys
                starts.append(written + np.cumsum(lengths) - lengths)
                written += int(lengths.sum())
        if not keys:
            raise UserError(f"no captions to encode into {folder}; the split is empty")
        keys, starts = np.array(keys), np.concatenate(starts)
        order = np.argsort(keys)
        np.save(partial / KEYS, keys[order])
        np.save(partial / STARTS, starts[order])
        shape = [written, features.shape[-1]]
        files.write_manifest(partial, encoder=encoder, captions=captions, shape=shape, dtype=str(features.dtype))


def _distinct(rows):
    """Keys, ids [B, S] and masks [B, S] of captions that were not there before, up to CHUNK at a time."""
    seen, chunk = set(), {}
    for ids, mask in rows:
        key = _key(ids, mask)
        if key in seen:
            continue
        seen.add(key)
        chunk[key] = ids, mask
        if len(chunk) == CHUNK:
            yield list(chunk), *map(np.stack, zip(*chunk.values(), strict=True))
            chunk = {}
    if chunk:
        yield list(chunk), *map(np.stack, zip(*chunk.values(), strict=True))


def _key(ids: np.ndarray, mask: np.ndarray) -> bytes:
    """96 bits: among a million captions two are alike by chance with probability 1e-17."""
    return hashlib.blake2b(ids.tobytes() + mask.tobytes(), digest_size=12).hexdigest().encode()


def stale(folder: str | Path, *, encoder: str, captions: str) -> str:
    """Why captions have to be encoded, in words; "" where features of this encoder and these captions are there.

    Args:
      folder, encoder, captions: see `write_features`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return MISSING
    try:
        manifest = files.verify_manifest(folder, once=True)
    except files.CorruptError as error:
        return f"corrupt: {error}"
    return files.stamped_otherwise(manifest, {"encoder": encoder, "captions": captions})


class TextFeatures:
    """What `write_features` wrote, mapped into memory; to be opened where it is not `stale`.

    Attributes:
      count: distinct captions.

    Raises:
      CorruptError: the manifest is missing or corrupt.
    """

    def __init__(self, folder: str | Path):
        self._folder = folder = Path(folder)
        manifest = files.read_json(folder / files.MANIFEST)
        shape, dtype = tuple(manifest["shape"]), np.dtype(manifest["dtype"])
        self._features = np.memmap(folder / FEATURES, dtype, "r", shape=shape)
        self._keys, self._starts = (np.load(folder / name, mmap_mode="r") for name in (KEYS, STARTS))
        self.count = len(self._keys)

    def __call__(self, ids: Int[np.ndarray, " S"], mask: Bool[np.ndarray, " S"]) -> Shaped[np.ndarray, "S D"]:
        """The encoder's outputs of one caption; 0 where no word piece stands, which nothing reads.

        Raises:
          UserError: the caption was not among those that were encoded.
        """
        key = _key(ids, mask)
        at = np.searchsorted(self._keys, key)
        if at == self.count or self._keys[at] != key:
            raise UserError(
                f"text features in {self._folder} lack a caption; delete the folder, and they are computed again"
            )
        start, features = self._starts[at], np.zeros((len(mask), self._features.shape[1]), self._features.dtype)
        features[mask] = self._features[start : start + mask.sum()]
        return features
