"""Photographs with captions: `captioned_photos`, crops of pictures that come inside scikit-image and matplotlib.

Pictures with no grammar at all, a dozen of them: enough to see that nothing in the recipe is tied to digits.
Nothing is downloaded; the two packages come with the extra `photos`.
"""

import functools
from collections.abc import Iterator
from importlib import resources

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from t2i_jax.data import prepared
from t2i_jax.errors import UserError

SIDE = 64  # pixels a side of a crop
SHORTER_SIDE = 88  # pixels that a photograph's shorter side is scaled to before it is cropped
PHOTOGRAPHS = {
    "a smiling astronaut in an orange suit": ("skimage.data", "astronaut.png"),
    "a man looking through a camera on a tripod": ("skimage.data", "camera.png"),
    "a ginger cat with green eyes": ("skimage.data", "chelsea.png"),
    "a cup of coffee on a wooden table": ("skimage.data", "coffee.png"),
    "rows of old coins": ("skimage.data", "coins.png"),
    "galaxies in a dark sky": ("skimage.data", "hubble_deep_field.jpg"),
    "purple and brown tissue under a microscope": ("skimage.data", "ihc.png"),
    "the cratered surface of the moon": ("skimage.data", "moon.png"),
    "a motorcycle in a garage": ("skimage.data", "motorcycle_left.png"),
    "the inside of an eye": ("skimage.data", "retina.jpg"),
    "a rocket on its launch pad": ("skimage.data", "rocket.jpg"),
    "an officer of the navy before a flag": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
"""Caption -> where the photograph lies."""


SIZES = {"train": 24_000, "validation": 600}
"""Crops in each split."""


@functools.cache
def photograph(words: str) -> UInt8[np.ndarray, "H W 3"]:
    """The photograph of a caption, a key of PHOTOGRAPHS, scaled down; shared, so read-only.

    Raises:
      UserError: the package that brings it is not installed.
    """
    package, name = PHOTOGRAPHS[words]
    try:
        file = resources.files(package) / name
    except ModuleNotFoundError:
        raise UserError(f"{package} is not installed; pip install -c requirements.lock -e '.[photos]'") from None
    with file.open("rb") as opened:
        picture = Image.open(opened).convert("RGB")
    scale = SHORTER_SIDE / min(picture.size)
    size = [round(scale * side) for side in picture.size]
    pixels = np.array(picture.resize(size, Image.Resampling.LANCZOS))
    pixels.flags.writeable = False
    return pixels


def random_crop(words: str, rng: np.random.Generator) -> UInt8[np.ndarray, "64 64 3"]:
    """A crop of a caption's photograph, every place equally likely."""
    pixels = photograph(words)
    y, x = (int(rng.integers(length - SIDE + 1)) for length in pixels.shape[:2])
    return pixels[y : y + SIDE, x : x + SIDE]


def random_crops(count: int, seed: int) -> UInt8[np.ndarray, "P count 64 64 3"]:
    """`count` crops of each photograph."""
    rng = np.random.default_rng([1, seed])
    return np.stack([[random_crop(words, rng) for _ in range(count)] for words in PHOTOGRAPHS])


class CaptionedPhotos(tfds.core.GeneratorBasedBuilder):
    """Random crops, the photographs in turn. `validation` holds other crops of the same photographs."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return prepared.info(self, __doc__, SIDE, caption=tfds.features.Text())

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(i, size) for i, (split, size) in enumerate(SIZES.items())}

    def _generate_examples(self, stream: int, size: int) -> Iterator:
        rng = np.random.default_rng([0, stream])
        captions = list(PHOTOGRAPHS)
        for number in range(size):
            caption = captions[number % len(captions)]
            yield number, {"image": random_crop(caption, rng), "caption": caption}


open = functools.partial(prepared.open_builder, CaptionedPhotos)
