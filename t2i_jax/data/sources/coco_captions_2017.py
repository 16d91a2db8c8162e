"""COCO captions 2017: `coco_captions_2017`, 118,287 + 5,000 photographs with five captions each.

Lin et al., "Microsoft COCO: Common objects in context", 2014; Chen et al., "Microsoft COCO captions", 2015. TFDS
itself has the captions of 2014 alone. Neither preparing nor reading needs TensorFlow. The official files are taken
from `DATA_DIR/downloads/manual`, zipped or unpacked, or fetched:

    train2017/*.jpg      val2017/*.jpg      annotations/captions_train2017.json, captions_val2017.json
    train2017.zip        val2017.zip        annotations_trainval2017.zip

A picture that cannot be read is skipped, and named in `skipped.json`; so is one whose captions an annotations
file lacks because it is cut short.
"""

import dataclasses
import json
import re
import struct
import urllib.request
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from t2i_jax import progress
from t2i_jax.data import images, prepared, skipped
from t2i_jax.errors import UserError, one_line

SHARD_SIZE = 1024  # pictures a shard, 200 MB before compression
SITE = "http://images.cocodataset.org"
ARCHIVES = {
    "annotations": "annotations/annotations_trainval2017.zip",
    "train2017": "zips/train2017.zip",
    "val2017": "zips/val2017.zip",
}
"""Folder -> the archive that it comes in."""

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error)  # of members that are damaged
UNKNOWN = 0x61  # flags of members: encrypted, patched data, encrypted strongly
LARGEST = 2**30  # bytes of a member; the largest of COCO's own, instances_train2017.json, has about half as many
LONGEST_NAME = 255  # bytes

OUTSIDE = re.compile(r"[/\\\0]")  # of a name that is more than that of a file beside others
BETWEEN = re.compile(r"[\s,:]*")  # two values of a JSON file


@dataclasses.dataclass(eq=False)
class CocoCaptions2017Config(tfds.core.BuilderConfig):
    """size: pixels a side of a picture."""

    size: int = 256


class CocoCaptions2017(tfds.core.ShardBasedBuilder):
    """Splits: `train` and `validation` (val2017), in the order of COCO's picture numbers.

    Not a GeneratorBasedBuilder: of a split above 1 GB that one makes temporary files, which needs TensorFlow.
    """

    name = "coco_captions_2017"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        CocoCaptions2017Config(name="256px"),
        CocoCaptions2017Config(name="tiny", description="For tests.", size=16),
    )

    def _info(self) -> tfds.core.DatasetInfo:
        captions, image_id = tfds.features.Sequence(tfds.features.Text()), tfds.features.Scalar(dtype=np.int64)
        return prepared.info(self, __doc__, self.builder_config.size, captions=captions, image_id=image_id)

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, list]:
        roots = _find(dl_manager, Path(self.data_dir_root, "downloads", "manual"))
        self._skipped = defaultdict(list)
        # Both annotations are read before the first picture is: a useless file shows at once.
        return {
            split: self._shards(roots[part] / part, *_read_annotations(roots["annotations"], part, self._skipped))
            for split, part in (("train", "train2017"), ("validation", "val2017"))
        }

    def _shards(self, folder, names: dict[int, str], captions: dict[int, list[str]]) -> list:
        """A generator of examples for each shard."""
        self._skipped["captioned without a picture"] += sorted(
            f"{folder.name}/{number}" for number in captions.keys() - names.keys()
        )
        numbers = sorted(names)
        parts = [numbers[start : start + SHARD_SIZE] for start in range(0, len(numbers), SHARD_SIZE)]
        return [partial(self._examples, folder, part, names, captions) for part in parts]

    def _examples(self, folder, numbers: list[int], names: dict, captions: dict) -> Iterator:
        def load(number):
            if not captions.get(number):
                return "without captions"
            return _load(folder.joinpath(names[number]), self.builder_config.size)

        with ThreadPoolExecutor() as pool:
            loaded = progress.bar(pool.map(load, numbers), folder.name, len(numbers))
            for number, image in zip(numbers, loaded, strict=True):
                if isinstance(image, str):
                    self._skipped[image].append(f"{folder.name}/{names[number]}")
                else:
                    yield number, {"image": image, "captions": captions[number], "image_id": number}
        skipped.write(self.data_dir, {reason: names for reason, names in self._skipped.items() if names})


def _load(path, size: int) -> np.ndarray | str:
    """The picture, or why there is none. Other errors of reading, such as of a failing disk, are raised."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "missing"
    except ZIP_ERRORS:
        return "corrupt"
    try:
        return images.crop(images.decode(content), size)
    except images.Unreadable as error:
        return str(error)


def _find(dl_manager, manual: Path) -> dict:
    """Folder -> what it lies in: a `Path`, or a `zipfile.Path`."""
    roots = {}
    for part, archive in ARCHIVES.items():
        zipped = manual / Path(archive).name
        if (manual / part).is_dir():
            roots[part] = manual
        elif zipped.is_file():
            roots[part] = _open_zip(zipped)
    missing = {part: f"{SITE}/{ARCHIVES[part]}" for part in ARCHIVES if part not in roots}
    if not missing:
        return roots
    try:  # TFDS alone would say for minutes that it tries again
        urllib.request.urlopen(urllib.request.Request(SITE, method="HEAD"), timeout=30).close()
        fetched = dl_manager.download(missing)
    except Exception as error:  # of urllib, requests, TFDS
        raise UserError(
            f"COCO lacks {', '.join(missing)}, and fetching failed ({one_line(error)}); put"
            f" {', '.join(missing.values())}, zipped or unpacked, into {manual}"
        ) from None
    return roots | {part: _open_zip(Path(path)) for part, path in fetched.items()}


def _open_zip(path: Path) -> zipfile.Path:
    try:
        archive, size = zipfile.ZipFile(path), path.stat().st_size
        for member in archive.infolist():
            known = (
                member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                and not member.flag_bits & UNKNOWN
            )
            inside = 0 <= member.header_offset < size
            if not (known and inside) or member.file_size > LARGEST:
                raise zipfile.BadZipFile(f"it holds {member.filename!r} in a form or of a size that COCO has not")
    except Exception as error:  # zipfile raises anything on bytes that are no zip file
        raise UserError(f"{path} is cut short or no zip file ({one_line(error)}); fetch it again") from None
    return zipfile.Path(archive)


def _read_annotations(root, part: str, skip: dict[str, list]) -> tuple[dict[int, str], dict[int, list[str]]]:
    """Picture number -> file name, and picture number -> captions, without line breaks and empty ones.

    Of a file that is cut short or broken in between, what stands before that is read. `skip` gets, by reason, the
    name of such a file, and rows of it that are no pictures or captions.
    """
    path = root / "annotations" / f"captions_{part}.json"
    try:
        raw = path.read_bytes()
        try:
            content, complete = json.loads(raw), True
        except (ValueError, RecursionError):
            content, complete = _complete_records(raw), False
        rows = {kind: list(content[kind]) for kind in ("images", "annotations")}
    except FileNotFoundError:
        raise UserError(f"{path} is missing; fetch {SITE}/{ARCHIVES['annotations']} again") from None
    except (KeyError, TypeError, *ZIP_ERRORS) as error:
        raise _useless(path, f"{type(error).__name__}: {error}") from None
    if not complete:
        skip["file of annotations cut short"].append(
            f"annotations/{path.name} after {len(rows['annotations'])} captions"
        )

    def read_rows(kind: str, read: Callable) -> list:
        found = []
        for number, row in enumerate(rows[kind]):
            try:
                found.append(read(row))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                skip[f"row of {kind} that cannot be read"].append(f"annotations/{path.name}, row {number}")
        return found

    names = dict(read_rows("images", lambda row: (_number(row["id"]), _file_name(row["file_name"]))))
    captions = defaultdict(list)
    texts = read_rows(
        "annotations", lambda row: (_number(row["id"]), _number(row["image_id"]), _words(row["caption"]))
    )
    for _, image, words in sorted(texts, key=lambda text: text[0]):
        captions[image] += filter(None, [words])
    if not any(captions[image] for image in names.keys() & captions.keys()):
        raise _useless(path, "no picture in it has a caption")
    return names, captions


def _number(value) -> int:
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{number} is no number of a picture")
    return number


def _file_name(value) -> str:
    """The name of a file beside others; one that leads elsewhere is none of COCO's."""
    name = str(value)
    if name in ("", ".", "..") or OUTSIDE.search(name) or len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"{name!r} is no name of a file")
    return name


def _words(caption: str) -> str:
    return " ".join(caption.encode("utf-8", "replace").decode().split())


def _useless(path, reason: str) -> UserError:
    site = f"{SITE}/{ARCHIVES['annotations']}"
    return UserError(f"{path} is cut short or holds no captions ({reason}); fetch {site} again")


def _complete_records(raw: bytes) -> dict:
    """The leading fields of a JSON object that is broken somewhere, of its arrays the leading elements."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        text = raw[: error.start].decode()
    read, content = json.JSONDecoder().raw_decode, {}

    def after(place):
        return BETWEEN.match(text, place).end()

    try:
        place = after(text.index("{") + 1)
        while True:
            key, place = read(text, place)
            if not isinstance(key, str):
                return content
            place = after(place)
            if text[place] != "[":
                content[key], place = read(text, place)
            else:
                rows = content[key] = []
                place = after(place + 1)
                while text[place] != "]":
                    row, place = read(text, place)
                    rows.append(row)
                    place = after(place)
                place += 1
            place = after(place)
    except (ValueError, IndexError, RecursionError):  # here it is broken
        return content


open = partial(prepared.open_builder, CocoCaptions2017)
