"""Sets of pictures: files in a folder, a split of a data set, and what a run makes."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from t2i_jax.data.images import Unreadable, crop, decode
from t2i_jax.errors import UserError
from t2i_jax.pictures import to_uint8
from t2i_jax.pipelines.batches import BATCH
from t2i_jax.ranges import sides

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}


class Folder:
    """Pictures below a folder, in the order of their names.

    Attributes:
      paths: of the files.
      about: what a protocol says of them.
    """

    def __init__(self, folder: str | Path, size: int | None = None, limit: int | None = None):
        """
        Args:
          folder: whose files of pictures count; hidden ones do not.
          size: side to which each central square is scaled; None takes pictures of one size as they are.
          limit: how many, the first.

        Raises:
          UserError: there is no such folder, or no picture in it.
        """
        root = Path(folder)
        if not root.is_dir():
            raise UserError(f"{folder} is no folder; name one that holds pictures")
        found = [
            path
            for path in sorted(root.rglob("*"))
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
        if not found:
            raise UserError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))}); name a folder that does")
        self.paths, self._size, self._shape = found[:limit], size, None
        self.about = {"folder": str(folder), "pictures": len(self.paths)}
        self.about["resize"] = _resize((size, size)) if size else "none"

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Pictures, RGB.

        Raises:
          UserError: one cannot be read, or has another size than the first.
        """
        self._shape, digest = None, hashlib.sha256()
        for path in self.paths:
            try:
                content = path.read_bytes()
                image = decode(content)
            except Unreadable as error:
                raise UserError(f"{path} is {error}; mend it or take it away") from None
            digest.update(hashlib.sha256(content).digest())
            pixels = crop(image, self._size) if self._size else np.array(image)
            self._shape = self._shape or pixels.shape
            if pixels.shape != self._shape:
                raise UserError(
                    f"{path} has {pixels.shape[1]} x {pixels.shape[0]} pixels, others before it"
                    f" {self._shape[1]} x {self._shape[0]}; give --size, to which all are scaled"
                )
            yield pixels
        self.about["sha256"] = digest.hexdigest()


def _resize(size: tuple[int, int]) -> str:
    height, width = size
    shape = "square" if height == width else "part of that shape"
    return f"centre {shape}, Lanczos, antialiased, to {height} x {width}"


class Split:
    """Pictures and captions of a split of the data that a run's config names.

    Attributes:
      about: what a protocol says of them.
    """

    def __init__(self, data, split: str, limit: int | None = None, seed: int = 0):
        """
        Args:
          data: `config.data`.
          split: "train", "validation", or as `config.data.validation` may be.
          limit: how many, drawn without replacement; None takes all, in their order.
          seed: of the draw.

        Raises:
          UserError: it cannot be opened, or has not so many.
        """
        from t2i_jax.data import sources  # Grain takes a second to import, and folders do without

        self.dataset, fingerprint = sources.open_split(data, data.get(split, split))
        count, self._size = len(self.dataset), sides(data["image_size"]) if "image_size" in data else None
        if limit is not None and limit > count:
            raise UserError(f"-n {limit} is above the {count} pictures of {data['name']}, {split}; ask for fewer")
        self.rows = np.arange(count) if limit is None else np.random.default_rng(seed).permutation(count)[:limit]
        self._seed = seed
        self.about = {
            "data": data["name"],
            "split": split,
            "pictures": len(self.rows),
            "fingerprint": fingerprint,
            "resize": _resize(self._size) + ", where they have another size" if self._size else "none",
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W C"]]:
        for row in self.rows:
            pixels = self.dataset[int(row)]["image"]
            if self._size and pixels.shape[:2] != self._size:
                pixels = crop(Image.fromarray(pixels.squeeze()), self._size).reshape(*self._size, -1)
            yield pixels

    def captions(self) -> list[str]:
        """One of each picture: where there are several, drawn by the seed."""
        rng, found = np.random.default_rng([self._seed, 1]), []
        for row in self.rows:
            example = self.dataset[int(row)]
            own = example["captions"] if "captions" in example else [example["caption"]]
            found.append(own[int(rng.integers(len(own)))].decode())
        return found


class Drawn:
    """What a run makes of captions, a picture each; of pictures where it is a tokenizer; else of nothing.

    Attributes:
      about: what a protocol says of them.
    """

    def __init__(self, pipe, split: Split, seed: int):
        """
        Args:
          pipe: an opened run.
          split: that its captions, or pictures, are of.
          seed: of the pictures.

        Raises:
          UserError: the run makes no pictures.
        """
        self._pipe, self._split, self._seed = pipe, split, seed
        self.about = {"step": pipe.step, "digest": pipe.digest, "pictures": len(split), "seed": seed}
        if hasattr(pipe, "draw_ids") and getattr(pipe, "conditional", True):
            self._make = self._of_captions
            self.about |= {"made": "one for each caption", "sampling": vars(pipe.sampling)}
        elif hasattr(pipe, "tokenize"):
            self._make = self._reconstructed
            self.about |= {"made": "reconstructions"}
        elif hasattr(pipe, "sample"):
            self._make = self._unconditional
            self.about |= {"made": "without captions"}
            self.about |= {"sampling": vars(pipe.sampling)} if hasattr(pipe, "sampling") else {}
        else:
            raise UserError("this run makes no pictures; name a translator, a prior or an image tokenizer")

    def __len__(self) -> int:
        return len(self._split)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W C"]]:
        for images in self._make():
            yield from images

    def _of_captions(self) -> Iterable[np.ndarray]:
        captions, pipe = self._split.captions(), self._pipe
        for start in range(0, len(captions), BATCH):
            part = captions[start : start + BATCH]
            indices: Int[np.ndarray, " B"] = np.arange(start, start + len(part))
            ids = pipe.draw_ids(part, indices, self._seed, pipe.sampling)
            yield to_uint8(pipe.tokenizer.detokenize(ids))

    def _reconstructed(self) -> Iterable[np.ndarray]:
        batch: list[np.ndarray] = []
        for number, image in enumerate(self._split, start=1):
            batch.append(image)
            if len(batch) == BATCH or number == len(self._split):
                yield to_uint8(self._pipe.detokenize(self._pipe.tokenize(np.stack(batch))))
                batch = []

    def _unconditional(self) -> Iterable[np.ndarray]:
        yield self._pipe.sample(len(self._split), self._seed)  # an image depends on its index
