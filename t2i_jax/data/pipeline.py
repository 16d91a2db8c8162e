"""From a prepared TFDS set or token shards to batches: Grain datasets, seeded, sharded over hosts, resumable."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import grain
import numpy as np

from t2i_jax import files
from t2i_jax.data import left_out
from t2i_jax.errors import UserError


def open_split(name: str, data_dir: str, split: str, damaged: str = "skip") -> grain.MapDataset:
    """Open a split of a captioned or labelled picture set, preparing the set first where it is missing.

    Args:
      name: TFDS name, `builder` or `builder/config`; a file of this folder of the same name registers it. TFDS's
        own labelled sets (`mnist`, `cifar10`) need TensorFlow to be prepared, but not to be read.
      data_dir: folder of prepared sets.
      split: "train", "validation", ..., or part of one as TFDS writes it: "train[:55000]", "train[90%:]".
      damaged: "refuse" a set from which preparing left out pictures that could not be read, or "skip" those.

    Returns:
      A dataset of `{"image": uint8 [H, W, C], "caption": bytes}`; a set with several captions a picture has
      `"captions"`, a list of bytes, instead. In a labelled set the caption is the name of the class.

    Raises:
      UserError: no such set, configuration or split, a damaged one, or one that cannot be prepared here.
    """
    import tensorflow_datasets as tfds  # 0.6 s; only where pictures are read

    if damaged not in ("skip", "refuse"):
        raise UserError(f"config.data.damaged is {damaged!r}; it is skip or refuse")
    builder_name, _, variant = name.partition("/")
    own = find_spec(f"t2i_jax.data.{builder_name}") is not None
    if own:  # registers on import
        import_module(f"t2i_jax.data.{builder_name}")
    try:
        variants = tfds.builder_cls(builder_name).builder_configs
    except tfds.core.DatasetNotFoundError:
        raise UserError(f"data set {name!r} is unknown to TFDS, and t2i_jax/data has no such file") from None
    if variant and variant not in variants:
        raise UserError(f"{builder_name} has no configuration {variant!r}; it has {', '.join(variants) or 'none'}")
    folder = Path(data_dir, builder_name, variant or next(iter(variants), ""))
    try:
        for manifest in folder.glob(f"*/{files.MANIFEST}"):
            files.check_sealed(manifest.parent)
    except files.DamagedError as error:
        raise UserError(f"data set {name}: {error}; delete {folder} to prepare it again") from None
    builder = _prepare(name, data_dir, folder, own)
    if damaged == "refuse" and (lacking := left_out.describe(builder.data_dir)):
        raise UserError(
            f"data set {name} lacks pictures: {lacking}; config.data.damaged=skip goes on without them, or replace"
            f" the files and delete {folder}"
        )
    try:
        source = builder.as_data_source(split=split)
        len(source)  # raises for "train[9:3]"
    except ValueError:
        sizes = ", ".join(str(info.num_examples) for info in builder.info.splits.values())
        splits = f"{', '.join(builder.info.splits)} ({sizes} pictures)"
        raise UserError(f"{name} has no split {split!r} with pictures; it has {splits}") from None
    dataset = grain.MapDataset.source(source)
    return dataset if own else dataset.map(_named_classes(name, builder.info.features))


def _named_classes(name: str, features):
    """A function that makes a labelled example a captioned one."""
    import tensorflow_datasets as tfds

    if "image" not in features or not isinstance(dict(features).get("label"), tfds.features.ClassLabel):
        raise UserError(f"data set {name} has no pictures with class labels; it holds {', '.join(features)}")
    classes = [words.encode() for words in features["label"].names]
    return lambda example: {"image": example["image"], "caption": classes[example["label"]]}


def _prepare(name: str, data_dir: str, folder: Path, own: bool):
    """The TFDS builder of a set that lies in a folder, prepared and sealed with digests."""
    import tensorflow_datasets as tfds

    way_out = f"delete {folder} to prepare it again"
    no_tensorflow = UserError(
        f"data set {name} is not prepared in {data_dir}, and preparing it needs TensorFlow: pip install"
        f" '.[prepare]', or copy {folder} from where it was prepared as array_record"
    )

    def build():
        prepared = sorted(folder.glob("*/dataset_info.json"))
        try:
            if own or not prepared:
                return tfds.builder(name, data_dir=os.path.abspath(data_dir), file_format="array_record")
            # Prepared by any version of TFDS; and the code of some of its sets needs TensorFlow.
            builder = tfds.builder_from_directory(prepared[-1].parent)
        except Exception as error:  # what a damaged file of the set makes of it has many names
            if not (own or prepared or find_spec("tensorflow")):
                raise no_tensorflow from None
            line = " ".join(str(error).split())[:300]
            raise UserError(f"data set {name} in {folder} cannot be opened: {line}; {way_out}") from None
        if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            raise UserError(
                f"data set {name} in {folder} is prepared as {builder.info.file_format.value}; prepare it as"
                " array_record (file_format='array_record' of tfds.builder), in another config.data.data_dir"
            )
        return builder

    builder = build()
    manifest = Path(builder.data_dir, files.MANIFEST)
    if manifest.exists():
        return builder
    if not (own or builder.info.splits or find_spec("tensorflow")):
        raise no_tensorflow
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    with files.lock(data_dir, wait=True):
        for attempt in folder.glob("incomplete.*"):  # of a process that was killed
            shutil.rmtree(attempt)
        builder = build()
        if manifest.exists():  # another process has made it while this one waited
            return builder
        if builder.info.splits:
            print(f"warning: {manifest} is missing; it is made anew from the files as they are", file=sys.stderr)
            _read_all(builder, way_out)
        else:
            print(f"preparing {name} in {data_dir}", file=sys.stderr)
        # Some versions of TFDS look for a prepared copy in a bucket first.
        with redirect_stdout(sys.stderr):  # TFDS says on stdout what it does; results alone belong there
            try:
                builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
            except (OSError, RuntimeError) as error:  # array_record raises the latter where the disk is full
                raise UserError(
                    f"data set {name} cannot be prepared in {data_dir}: {str(error).splitlines()[0]}; make room or"
                    " mend what is named, and the same command goes on"
                ) from None
        if not builder.info.splits:
            raise UserError(f"data set {name} in {builder.data_dir} has lost its dataset_info.json; {way_out}")
        files.seal(builder.data_dir)
    if lacking := left_out.describe(builder.data_dir):
        print(f"warning: {name} lacks pictures: {lacking}; {left_out.FILE} has all names", file=sys.stderr)
    return builder


def _read_all(builder, way_out: str) -> None:
    """Whether every record of a set without digests can be read; array_record has sums of its own."""
    for split in builder.info.splits:
        try:
            source = builder.as_data_source(split=split)
            for number in range(len(source)):
                source[number]
        except Exception as error:  # as in `build`
            line = " ".join(str(error).split())[:300]
            raise UserError(f"split {split} in {builder.data_dir} is damaged ({line}); {way_out}") from None


def train_stream(
    dataset: grain.MapDataset, transform, *, batch_size: int, seed: int, host: int = 0, hosts: int = 1
) -> grain.DatasetIterator:
    """Endless shuffled batches, whose position can be saved and restored with a checkpoint.

    Args:
      dataset: examples.
      transform: `(example, numpy Generator) -> example of arrays`. The generator depends on the seed, the
        epoch and the example alone, not on devices or workers.
      batch_size: examples a batch over all hosts; divisible by `hosts`.
      seed: of the shuffling (another order each epoch) and of the transform.
      host, hosts: which share of the examples this host reads.

    Returns:
      A `grain.DatasetIterator` over dicts of arrays [B / hosts, ...].
    """
    examples = dataset.seed(seed).shuffle().repeat().random_map(transform)[host::hosts]
    batches = examples.batch(batch_size // hosts, drop_remainder=True)
    # Grain's own default would read 500 batches ahead.
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)))


def one_pass(dataset: grain.MapDataset, transform, batch_size: int) -> Iterator[tuple[dict, int]]:
    """Every example once and in order, in batches of one size.

    Args:
      dataset: examples.
      transform: `(example, numpy Generator) -> example of arrays`.
      batch_size: B.

    Yields:
      A dict of arrays [B, ...] and how many of its leading rows count; in the last batch the rest repeats
      the last example.
    """
    count = len(dataset)
    rng = np.random.default_rng(0)
    for start in range(0, count, batch_size):
        rows = [transform(dataset[min(i, count - 1)], rng) for i in range(start, start + batch_size)]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        yield batch, min(batch_size, count - start)
