"""Sets of pictures: files in a folder, a split of a data set, and what a run makes."""

import functools
import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from t2i_jax import files
from t2i_jax.data.images import Unreadable, crop, decode
from t2i_jax.errors import UserError
from t2i_jax.pictures import read_note, to_uint8
from t2i_jax.pipelines.batches import BATCH
from t2i_jax.ranges import sides

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}


class Folder:
    """Pictures below a folder, in the order of their names.

    Attributes:
      paths: of the files.
      about: what a protocol says of them.
    """

    def __init__(self, folder: str | Path, size: int | tuple[int, int] | None = None, limit: int | None = None):
        """
        Args:
          folder: whose files of pictures count; hidden ones do not.
          size: side, or height and width, to which the largest part of that shape in the middle of each is scaled;
            None takes pictures of one size as they are.
          limit: how many, the first.

        Raises:
          UserError: there is no such folder, or no picture in it.
        """
        root = self._root = Path(folder)
        if not root.is_dir():
            raise UserError(f"{folder} is no folder; name one that holds pictures")
        found = [
            path
            for path in sorted(root.rglob("*"))
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
        if not found:
            raise UserError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))}); name a folder that does")
        self.paths, self._size = found[:limit], size
        self.about = {"folder": str(folder), "pictures": len(self.paths)}
        self.about["resize"] = _resize(sides(size)) if size else "none"
        contents = b"".join(bytes.fromhex(files.sha256_of(path)) for path in self.paths)
        self.about["sha256"] = hashlib.sha256(contents).hexdigest()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def captions(self) -> list[str]:
        """Of each picture the prompt that `t2i sample` wrote into it, or the first that training would read.

        Raises:
          UserError: one has none.
        """
        from t2i_jax.data.entries import find_files  # readers of tar and parquet, which pictures do without
        from t2i_jax.data.layouts import captions_of

        known = captions_of(find_files(self._root, {}), self._root, {})
        found = []
        for path in self.paths:
            own = known.get(path.relative_to(self._root).as_posix(), [])
            caption = (read_note(path) or {}).get("prompt") or (own[0] if own else None)
            if caption is None:
                raise UserError(
                    f"{path} has no caption, which CLIP score needs; put one beside it, as in {path.stem}.txt, or"
                    " leave clip out of --metrics"
                )
            found.append(caption)
        return found

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        return self.after(0)

    def after(self, count: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """Pictures, RGB, but for the first `count`.

        Raises:
          UserError: one cannot be read, or has another size than the first.
        """
        shape = None
        for number, path in enumerate(self.paths):
            if 0 < number < count:  # the first one says the size of all
                continue
            try:
                image = decode(path.read_bytes())
            except Unreadable as error:
                raise UserError(f"{path} is {error}; mend it or take it away") from None
            pixels = crop(image, self._size) if self._size else np.array(image)
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise UserError(
                    f"{path} has {pixels.shape[1]} x {pixels.shape[0]} pixels, others before it"
                    f" {shape[1]} x {shape[0]}; give --size, to which all are scaled"
                )
            if number >= count:
                yield pixels


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
            "seed": None if limit is None else seed,
            "fingerprint": fingerprint,
            "resize": _resize(self._size) + ", where they have another size" if self._size else "none",
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W C"]]:
        return self.after(0)

    def after(self, count: int) -> Iterator[UInt8[np.ndarray, "H W C"]]:
        """Pictures, but for the first `count`."""
        for row in self.rows[count:]:
            pixels = self.dataset[int(row)]["image"]
            if self._size and pixels.shape[:2] != self._size:
                pixels = crop(Image.fromarray(pixels.squeeze()), self._size).reshape(*self._size, -1)
            yield pixels

    @functools.cached_property  # pictures are decoded for it
    def captions(self) -> list[str]:
        """One of each picture: where there are several, drawn by the seed."""
        rng, found = np.random.default_rng([self._seed, 1]), []
        for row in self.rows:
            example = self.dataset[int(row)]
            own = example["captions"] if "captions" in example else [example["caption"]]
            found.append(own[int(rng.integers(len(own)))].decode())
        return found


class Prompts:
    """Captions of a file, a line each; there are no pictures with them.

    Attributes:
      captions: the texts.
      about: what a protocol says of them.
    """

    def __init__(self, path: str | Path, captions: list[str]):
        self.captions = captions
        self.about = {"prompts": str(path), "pictures": len(captions)}
        self.about["sha256"] = hashlib.sha256("\n".join(captions).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.captions)


class Drawn:
    """What a run makes of captions, a picture each; of pictures where it is a tokenizer; else of nothing.

    Attributes:
      about: what a protocol says of them.
    """

    def __init__(self, pipe, split: Split | Prompts, seed: int):
        """
        Args:
          pipe: an opened run.
          split: that its captions, or pictures, are of.
          seed: of the pictures.

        Raises:
          UserError: the run makes no pictures, or none of prompts alone; or a prompt is too long for it.
        """
        self._pipe, self._split, self._seed = pipe, split, seed
        self.about = {"step": pipe.step, "digest": pipe.digest, "pictures": len(split), "seed": seed}
        self.about |= {"of": split.about}
        if hasattr(pipe, "draw_ids") and getattr(pipe, "conditional", True):
            if isinstance(split, Prompts):
                pipe.check(split.captions)  # before the first is drawn
            self._make = self._of_captions
            self.about["tokenizer"] = pipe.tokenizer.digest
            self.about |= {"made": "one for each caption", "sampling": vars(pipe.sampling)}
        elif isinstance(split, Prompts):
            raise UserError("this run reads no captions, so none of --prompts-file; name a translator, or leave it")
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

    @property
    def captions(self) -> list[str]:
        """Of each picture the one that it was drawn for, or that belongs to what it reconstructs.

        Raises:
          UserError: they are drawn without captions.
        """
        if self._make == self._unconditional:
            raise UserError("this run draws without captions, which CLIP score needs; leave clip out of --metrics")
        return self._split.captions

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W C"]]:
        return self.after(0)

    def after(self, count: int) -> Iterator[UInt8[np.ndarray, "H W C"]]:
        """Pictures, but for the first `count`; made in the same batches as all, since others change last bits."""
        first = count - count % BATCH
        return islice(chain.from_iterable(self._make(first)), count - first, None)

    def _of_captions(self, first) -> Iterable[np.ndarray]:
        captions, pipe = self._split.captions, self._pipe
        for start in range(first, len(captions), BATCH):
            part = captions[start : start + BATCH]
            indices: Int[np.ndarray, " B"] = np.arange(start, start + len(part))
            ids = pipe.draw_ids(part, indices, self._seed, pipe.sampling)
            yield to_uint8(pipe.tokenizer.detokenize(ids))

    def _reconstructed(self, first) -> Iterable[np.ndarray]:
        batch: list[np.ndarray] = []
        for number, image in enumerate(self._split.after(first), start=first + 1):
            batch.append(image)
            if len(batch) == BATCH or number == len(self._split):
                yield to_uint8(self._pipe.detokenize(self._pipe.tokenize(np.stack(batch))))
                batch = []

    def _unconditional(self, first) -> Iterable[np.ndarray]:
        yield self._pipe.sample(len(self._split), self._seed)[first:]
