"""Image sets that TFDS prepares as array_record: made once, described by a manifest, verified before they are read.

A source that has a TFDS builder of its own is two lines:

    class Flowers(tfds.core.GeneratorBasedBuilder): ...

    open = partial(prepared.open_builder, Flowers)
"""

import hashlib
import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path

import grain
import numpy as np

from t2i_jax import files
from t2i_jax.data import skipped
from t2i_jax.errors import UserError, one_line
from t2i_jax.ranges import sides


def open_builder(
    builder_cls, split: str, data_dir: str, *, variant: str = "", corrupt: str = "skip"
) -> tuple[grain.MapDataset, str]:
    """Open a split of the set of a TFDS builder, preparing the set first where it is missing.

    Args:
      builder_cls: a class of TFDS builders; its VERSION is part of the fingerprint.
      split: as TFDS writes it.
      data_dir: folder of prepared sets; made where only it is missing.
      variant: one of the builder's configurations; "" is the first.
      corrupt: "refuse" a set of which preparing skipped images that could not be read, or "skip" those.

    Returns:
      A dataset of the builder's examples, and their fingerprint.

    Raises:
      UserError: no such variant or split, a corrupt set, or one that cannot be prepared here.
    """
    name = full_name(builder_cls.name, variant, builder_cls.builder_configs)

    def build():
        _, _, variant = name.partition("/")
        options = {"config": variant} if variant else {}
        return builder_cls(data_dir=os.path.abspath(data_dir), file_format="array_record", **options)

    return open_split(name, Path(data_dir, name), build, data_dir, split, corrupt)


def info(builder, description: str, size: int | tuple[int, int], *, channels: int = 3, **features):
    """The `tfds.core.DatasetInfo` of a set of pictures of `size` (a side, or both), with further TFDS features.

    Not features.Image: TFDS encodes PNG by TensorFlow only, and reads it at 1,900 examples/s where a plain tensor
    reads at 8,500/s from a file of the same size, because array_record compresses. As bytes: else every pixel
    becomes an integer of its own, and preparing takes twice as long. Not shuffled on disk: that only costs time.
    """
    import tensorflow_datasets as tfds  # 0.6 s; only where images are read

    image = tfds.features.Tensor(shape=(*sides(size), channels), dtype=np.uint8, encoding="bytes")
    # DatasetInfo itself, because dataset_info_from_configs would look for metadata files in the source's folder.
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict({"image": image, **features}),
        disable_shuffling=True,
    )


def full_name(name: str, variant: str, variants: Iterable[str]) -> str:
    """`name/variant`, the first of the variants for ""; `name` alone where there are none.

    Raises:
      UserError: there is no such variant.
    """
    if variant and variant not in variants:
        raise UserError(f"{name} has no configuration {variant!r}; it has {', '.join(variants) or 'none'}")
    return "/".join(filter(None, [name, variant or next(iter(variants), "")]))


def open_split(
    name: str, folder: Path, build: Callable, data_dir: str, split: str, corrupt: str
) -> tuple[grain.MapDataset, str]:
    """Open a split of a set, preparing it first where it is missing.

    Its metadata are verified at once, its records before the first of them is read, each once a process.

    Args:
      name: of the set, for messages and the fingerprint.
      folder: that holds the set's versions.
      build: makes the TFDS builder of the set, prepared or not.
      data_dir, split, corrupt: see `open_builder`.

    Returns:
      The dataset and its fingerprint.

    Raises:
      UserError: see `open_builder`.
    """
    if corrupt not in ("skip", "refuse"):
        raise UserError(f"config.data.corrupt is {corrupt!r}; it is skip or refuse")
    way_out = f"delete {folder} to prepare it again"

    def verify(version: Path, records: bool) -> dict:
        try:
            return files.verify_manifest(version, once=True, only=lambda file: (".array_record" in file) == records)
        except files.CorruptError as error:
            raise UserError(f"data set {name}: {error}; {way_out}") from None

    for manifest in folder.glob(f"*/{files.MANIFEST}"):  # what the builder is made from
        verify(manifest.parent, records=False)
    builder = _prepare(name, data_dir, folder, build, way_out)
    version = Path(builder.data_dir)
    if corrupt == "refuse" and (lacking := skipped.describe(version)):
        raise UserError(
            f"data set {name} lacks pictures: {lacking}; config.data.corrupt=skip goes on without them, or replace"
            f" the files and delete {folder}"
        )
    try:
        source = builder.as_data_source(split=split)
        len(source)  # raises for "train[9:3]"
    except ValueError:
        sizes = ", ".join(str(info.num_examples) for info in builder.info.splits.values())
        splits = f"{', '.join(builder.info.splits)} ({sizes} pictures)"
        raise UserError(f"{name} has no split {split!r} with pictures; it has {splits}") from None
    except (OSError, RuntimeError):  # of a shard; the manifest knows which
        verify(version, records=True)
        raise
    dataset = grain.MapDataset.source(_Verified(source, lambda: verify(version, records=True)))
    made_of = [name, version.name, files.read_json(version / files.MANIFEST)["files"], split, corrupt]
    return dataset, hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


class _Verified:
    """The records of a source; `verify` is called before the first one is read."""

    def __init__(self, source, verify: Callable):
        self._source, self._verify = source, verify
        self._lock, self._done = threading.Lock(), False

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index):
        if not self._done:
            with self._lock:  # the other threads wait, instead of reading the same files
                if not self._done:
                    self._verify()
                    self._done = True
        return self._source[index]


def _prepare(name: str, data_dir: str, folder: Path, build: Callable, way_out: str):
    """The TFDS builder of a set that lies in a folder, prepared and with a manifest."""
    import tensorflow_datasets as tfds  # 0.6 s; only where images are read

    def open_builder():
        try:
            return build()
        except UserError:
            raise
        except Exception as error:  # what a corrupt file of the set makes of it has many names
            raise UserError(f"data set {name} in {folder} cannot be opened: {one_line(error)}; {way_out}") from None

    builder = open_builder()
    if Path(builder.data_dir, files.MANIFEST).exists():
        return builder
    _make_folder(name, data_dir)
    with files.lock(data_dir, wait=True):
        for attempt in folder.glob("incomplete.*"):  # of a process that was killed
            shutil.rmtree(attempt)
        builder = open_builder()
        version = Path(builder.data_dir)
        if (version / files.MANIFEST).exists():  # another process has made it while this one waited
            return builder
        if builder.info.splits:
            print(
                f"warning: {version / files.MANIFEST} is missing; it is made anew from the files as they are",
                file=sys.stderr,
            )
            _read_all(builder, way_out)
        else:
            print(f"preparing {name} in {data_dir}", file=sys.stderr)
        # Some versions of TFDS look for a prepared copy in a bucket first.
        with redirect_stdout(io.StringIO()):  # TFDS speaks of a download there, even where there is none
            try:
                builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
            except (OSError, RuntimeError) as error:  # array_record raises the latter where the disk is full
                raise UserError(
                    f"data set {name} cannot be prepared in {data_dir}: {str(error).splitlines()[0]}; make room or"
                    " mend what is named, and the same command goes on"
                ) from None
        if not builder.info.splits:
            raise UserError(f"data set {name} in {version} has lost its dataset_info.json; {way_out}")
        files.write_manifest(version)
    if lacking := skipped.describe(version):
        print(f"warning: {name} lacks pictures: {lacking}; {skipped.FILE} has all names", file=sys.stderr)
    return builder


def _make_folder(name: str, data_dir: str) -> None:
    try:
        Path(data_dir).mkdir(exist_ok=True)
    except FileNotFoundError:  # more likely a typing error than a wish
        raise UserError(
            f"data set {name} cannot be prepared in {data_dir}: {Path(data_dir).parent} does not exist; make that"
            " folder, or name another config.data.data_dir"
        ) from None


def _read_all(builder, way_out: str) -> None:
    """Whether every record of a set without a manifest can be read; array_record has checksums of its own."""
    for split in builder.info.splits:
        try:
            source = builder.as_data_source(split=split)
            for number in range(len(source)):
                source[number]
        except Exception as error:  # as in `open_builder`
            reason = one_line(error)
            raise UserError(f"split {split} in {builder.data_dir} is corrupt ({reason}); {way_out}") from None
