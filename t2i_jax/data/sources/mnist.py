"""MNIST: `mnist`, 60,000 + 10,000 handwritten digits, grey, 28 x 28 pixels; the caption is the digit.

LeCun et al., "Gradient-based learning applied to document recognition", 1998. The original files are taken from
`DATA_DIR/downloads/manual/mnist`, gzipped or not:

    train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import tensorflow_datasets as tfds

from t2i_jax.data import originals, prepared
from t2i_jax.errors import UserError

SIDE = 28  # pixels
PREFIXES = {"train": "train", "test": "t10k"}  # of a split's files
KINDS = {"images-idx3-ubyte": (SIDE, SIDE), "labels-idx1-ubyte": ()}  # of files -> sizes of an item


class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # TFDS has one of this name
    """Handwritten digits. Splits: `train` and `test`, in the order of the files."""

    VERSION = tfds.core.Version("1.0.0")
    CAPTIONS = tuple("0123456789")
    ADDRESS = "https://storage.googleapis.com/cvdf-datasets/mnist/"

    def _info(self) -> tfds.core.DatasetInfo:
        return prepared.info(self, self.__doc__, SIDE, channels=1, caption=tfds.features.Text())

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        folder = originals.manual(self) / self.name
        return {split: self._generate_examples(*self._find(folder, split)) for split in PREFIXES}

    def _generate_examples(self, images: Path, labels: Path) -> Iterator:
        pictures, numbers = map(originals.read_idx, (images, labels), KINDS.values())
        return originals.examples(labels, pictures[..., None], numbers, self.CAPTIONS)

    def _find(self, folder: Path, split: str) -> list[Path]:
        """Images and labels."""
        found = []
        for kind in KINDS:
            paths = [folder / f"{PREFIXES[split]}-{kind}{suffix}" for suffix in ("", ".gz")]
            if not any(path.is_file() for path in paths):
                names = ", ".join(f"{prefix}-{each}.gz" for prefix in PREFIXES.values() for each in KINDS)
                raise UserError(f"{self.name} lacks {paths[1]}; put {names} from {self.ADDRESS} into {folder}")
            found.append(next(path for path in paths if path.is_file()))
        return found


open = partial(prepared.open_builder, Mnist)
