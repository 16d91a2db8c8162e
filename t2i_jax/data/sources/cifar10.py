"""CIFAR10: `cifar10`, 50,000 + 10,000 photographs, 32 x 32 pixels; the caption is the name of the class.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009. Either original archive is taken from
`DATA_DIR/downloads/manual`, as it is or unpacked:

    cifar-10-binary.tar.gz      or   cifar-10-batches-bin/
    cifar-10-python.tar.gz      or   cifar-10-batches-py/
"""

import pickletools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from t2i_jax.data import originals, prepared
from t2i_jax.errors import UserError, one_line

SIDE, CHANNELS = 32, 3
PIXELS = SIDE * SIDE * CHANNELS
CAPTIONS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Of the classes, in the order of their labels."""
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SPLITS = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
KEYS = (b"batch_label", b"data", b"filenames", b"labels")  # of the dict that is pickled


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # TFDS has one of this name
    """Photographs of animals and vehicles. Splits: `train` and `test`, in the order of the files."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return prepared.info(self, self.__doc__, SIDE, channels=CHANNELS, caption=tfds.features.Text())

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        origin, batches = _read_batches(originals.manual(self))
        return {split: self._generate_examples(origin, [batches[n] for n in SPLITS[split]]) for split in SPLITS}

    def _generate_examples(self, origin: Path, batches: list[tuple[np.ndarray, np.ndarray]]) -> Iterator:
        pixels, labels = map(np.concatenate, zip(*batches, strict=True))
        images = pixels.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
        return originals.examples(origin, images, labels, CAPTIONS)


def _read_batches(manual: Path) -> tuple[Path, dict[str, tuple]]:
    """Where the batches lie, and what each holds by its name, see `parse_binary`."""
    forms = (
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", ".bin", parse_binary),
        ("cifar-10-python.tar.gz", "cifar-10-batches-py", "", parse_pickle),
    )
    for archive, folder, suffix, parse in forms:
        paths = {name: f"{folder}/{name}{suffix}" for names in SPLITS.values() for name in names}
        if (manual / folder).is_dir():
            origin, contents = manual, {path: originals.read(manual / path) for path in paths.values()}
        elif (manual / archive).is_file():
            origin = manual / archive
            contents = originals.read_tar(origin, paths.values())
        else:
            continue
        return origin, {name: parse(f"{origin}/{path}", contents[path]) for name, path in paths.items()}
    names = " or ".join(archive for archive, *_ in forms)
    raise UserError(f"cifar10 lacks its files; put {names} from {ADDRESS}, packed or unpacked, into {manual}")


def parse_binary(path: str, content: bytes) -> tuple[UInt8[np.ndarray, "n 3072"], UInt8[np.ndarray, " n"]]:
    """Pixels (red, green, blue, each row by row) and labels of a batch: a byte of label before each picture.

    Raises:
      UserError: these are no whole pictures.
    """
    if not content or len(content) % (1 + PIXELS):
        raise UserError(f"{path} has {len(content):,} bytes, no multiple of {1 + PIXELS:,}; fetch it again")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0]


def parse_pickle(path: str, content: bytes) -> tuple[UInt8[np.ndarray, "n 3072"], UInt8[np.ndarray, " n"]]:
    """As `parse_binary`, of a pickled dict with the array `data` and the list `labels`.

    A pickle is a program, and it is not run: the numbers are taken from the arguments of its instructions.

    Raises:
      UserError: it is no such dict.
    """
    key, labels, pixels = b"", [], b""
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if isinstance(argument, str):
                argument = argument.encode("latin-1")  # a string of Python 2 is one of bytes
            if argument in KEYS:
                key = argument
            elif key == b"labels" and opcode.name in ("BININT1", "BININT2", "BININT"):
                labels.append(argument)
            elif key == b"data" and isinstance(argument, bytes | bytearray) and len(argument) > len(pixels):
                pixels = argument
        numbers = np.array(labels, np.uint8)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path} is no batch of CIFAR10 ({one_line(error)}); fetch it again") from None
    if not labels or len(pixels) != PIXELS * len(labels):
        raise UserError(
            f"{path} has {len(labels):,} labels and {len(pixels):,} bytes of pixels, not {PIXELS:,} a label; fetch"
            " it again"
        )
    return np.frombuffer(pixels, np.uint8).reshape(-1, PIXELS), numbers


open = partial(prepared.open_builder, Cifar10)
