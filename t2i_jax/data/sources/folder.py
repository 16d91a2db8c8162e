"""Your own pictures: `folder`, what `config.data.dir` holds (see `data/entries.py`).

    dataset, fingerprint = folder.open("train", "data", dir="photos", image_size=64)
    dataset[0]  # {"image": uint8 [64, 64, 3], "captions": [bytes, ...]}

A prepared set is named by a digest of all files of the folder and of the options, so another folder never passes
for it. `validation` has the pictures of which the digest of their content says so, about `validation_share` of
them: which split a picture belongs to depends on no other picture. Equal pictures are one, with the captions of
all. A split that gets no picture, as in a small folder, is made of the other's.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import grain
import numpy as np
import tensorflow_datasets as tfds
from PIL import ImageColor

from t2i_jax import progress
from t2i_jax.data import entries, images, prepared, skipped
from t2i_jax.data.entries import Picture
from t2i_jax.errors import UserError
from t2i_jax.ranges import as_image_size

SHARD_SIZE = 1024  # examples a shard
BORROWED = 1024  # most pictures that a split without any takes from the other
MAX_CROPS = 1000


@dataclasses.dataclass(frozen=True)
class Options:
    """What is made of the pictures; fields of `config.data`.

    Attributes:
      image_size: H and W of the prepared pictures, one number where they are equal: the largest part of that
        shape in the middle of each, scaled.
      validation_share: of pictures that are held out, in [0, 1).
      background: colour under what is transparent, a name or #rrggbb.
      crops: random parts of that shape that training gets of each picture beside the central one.
      crop_scale: least and largest of these, as shares of the sides of the central one.
      flip: training gets all of them mirrored too; not for captions that say left and right.

    Raises:
      UserError: one of them is out of its range.
    """

    image_size: int | tuple[int, int]
    validation_share: float
    background: str
    crops: int
    crop_scale: tuple[float, float]
    flip: bool

    def __post_init__(self):
        checks = (
            ("validation_share", 0 <= self.validation_share < 1, "at least 0 and below 1"),
            ("background", _is_colour(self.background), "a colour, such as white or #ffffff"),
            ("crops", 0 <= self.crops <= MAX_CROPS, f"0 to {MAX_CROPS}"),
            ("crop_scale", _is_scale(self.crop_scale), "two numbers, 0 < least <= largest <= 1"),
        )
        for field, fits, range_ in checks:
            if not fits:
                raise UserError(f"config.data.{field} is {getattr(self, field)!r}; it is {range_}")


def _is_colour(text: str) -> bool:
    try:
        return len(ImageColor.getrgb(text)) == 3
    except ValueError:
        return False


def _is_scale(scale: tuple) -> bool:
    return len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1


@dataclasses.dataclass(eq=False)
class FolderConfig(tfds.core.BuilderConfig):
    """A folder and its options."""

    dir: str = ""
    options: Options | None = None


class Folder(tfds.core.ShardBasedBuilder):
    """Splits: `train`, and `validation` without crops and mirrored pictures.

    Not a GeneratorBasedBuilder: see `coco_captions_2017`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, config: FolderConfig, **options):
        self._config = config
        super().__init__(config=config, **options)

    def get_builder_config(self, name: str, version: str | None = None) -> FolderConfig:
        """The only one; without this, TFDS warns that it does not know it."""
        return self._config

    def _info(self) -> tfds.core.DatasetInfo:
        captions = tfds.features.Sequence(tfds.features.Text())
        return prepared.info(self, __doc__, self.builder_config.options.image_size, captions=captions)

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, list]:
        del dl_manager
        config, self._skipped, parts = self.builder_config, {}, {"train": {}, "validation": {}}
        for name, picture in entries.pictures_of(config.dir, self._skipped).items():
            held_out = picture.is_held_out(config.options.validation_share)
            parts["validation" if held_out else "train"][name] = picture
        train, validation = parts.values()
        return {
            "train": self._shards("train", train, validation),
            "validation": self._shards("validation", validation, train),
        }

    def _shards(self, split: str, own: dict[str, Picture], others: dict[str, Picture]) -> list:
        """A generator of examples for each shard; together they are one."""
        options, examples = self.builder_config.options, self._examples(split, own, others)
        each = (1 + options.crops) * (1 + options.flip) if split == "train" else 1
        shards = max(1, math.ceil(len(own) * each / SHARD_SIZE))
        return [partial(islice, examples, SHARD_SIZE) for _ in range(shards - 1)] + [lambda: examples]

    def _examples(self, split: str, own: dict[str, Picture], others: dict[str, Picture]) -> Iterator:
        config = self.builder_config
        yield from enumerate(self._of(split, own))
        if not own:
            share = f"config.data.validation_share {config.options.validation_share}"
            print(f"{config.dir} has no picture for {split} alone ({share}): it shares the others", file=sys.stderr)
            yield from enumerate(self._of(split, dict(islice(others.items(), BORROWED))))
        skipped.write(self.data_dir, self._skipped)

    def _of(self, split: str, pictures: dict[str, Picture]) -> Iterator[dict]:
        """Examples of pictures; of these, those that cannot be read are skipped and removed."""
        config = self.builder_config
        made = entries.map_pictures(config.dir, pictures, partial(_crops, config.options, split == "train"))
        for name, crops in progress.bar(made, split, len(pictures), hidden=not pictures):
            if isinstance(crops, images.Unreadable):
                skipped.add(self._skipped, str(crops), name)
                del pictures[name]
            else:
                captions = pictures[name].captions
                yield from ({"image": crop, "captions": captions} for crop in crops)


def _crops(options: Options, augment: bool, content: bytes, picture: Picture) -> list[np.ndarray]:
    """What a split gets of a picture; random crops depend on its content alone."""
    image, size = images.decode(content, options.background), options.image_size
    crops = [images.crop(image, size)]
    if augment:
        rng = np.random.default_rng(int(picture.digest, 16))
        crops += [images.random_crop(image, size, options.crop_scale, rng) for _ in range(options.crops)]
        crops += [crop[:, ::-1] for crop in crops] if options.flip else []
    return crops


def open(
    split: str,
    data_dir: str,
    *,
    dir: str,
    image_size: int | Sequence[int],
    validation_share: float = 0.1,
    background: str = "white",
    crops: int = 0,
    crop_scale: tuple[float, float] = (0.5, 1.0),
    flip: bool = False,
    corrupt: str = "skip",
) -> tuple[grain.MapDataset, str]:
    """Open a split of a folder of pictures, prepared first where this folder with these options is not yet.

    Args:
      split, data_dir, corrupt: see `prepared.open_builder`.
      dir: the folder, or a tar or parquet file.
      image_size, validation_share, background, crops, crop_scale, flip: see `Options`.

    Raises:
      UserError: there is no such folder, or no picture with a caption in it; `data_dir` lies in it; an option is
        out of its range; or what `prepared.open_builder` raises.
    """
    if not dir:
        raise UserError("config.data.dir is empty; name your folder of pictures, as in --config.data.dir=photos")
    if Path(data_dir, Folder.name).resolve().is_relative_to(Path(dir).resolve()):
        raise UserError(
            f"config.data.data_dir {data_dir} would lie in config.data.dir {dir}, which would change with what is"
            " prepared; start the command in another folder"
        )
    size = as_image_size(image_size, "config.data.image_size")
    options = Options(size, validation_share, background, crops, tuple(crop_scale), flip)
    made_of = json.dumps([entries.digest_of(dir), dataclasses.asdict(options)])
    stem = re.sub(r"[^\w-]", "_", Path(dir).resolve().name, flags=re.ASCII) or "pictures"
    config = FolderConfig(f"{stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}", dir=dir, options=options)
    folder = Path(data_dir, Folder.name, config.name)
    earlier = [] if folder.exists() else sorted(folder.parent.glob(f"{stem}-{'?' * 12}"))
    if earlier:
        print(
            f"{earlier[-1]} was made of other pictures, captions or options than those of {dir} now; preparing anew"
            " (what is no longer needed there can be deleted)",
            file=sys.stderr,
        )

    def build():
        return Folder(data_dir=os.path.abspath(data_dir), config=config, file_format="array_record")

    return prepared.open_split(f"{Folder.name}/{config.name}", folder, build, data_dir, split, corrupt)
