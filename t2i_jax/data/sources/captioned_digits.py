"""The embedded data set: `captioned_digits`, pictures of handwritten digits with captions that are true.

Nothing is downloaded and TensorFlow is not needed, neither to prepare nor to read:

    dataset, fingerprint = captioned_digits.open("train", "data", variant="fine")
    dataset[0]  # {"image": uint8 [32, 32, 3], "caption": bytes}
"""

import dataclasses
from collections.abc import Iterator
from functools import partial

import numpy as np
import tensorflow_datasets as tfds

from t2i_jax.data import prepared, scenes


@dataclasses.dataclass(eq=False)
class CaptionedDigitsConfig(tfds.core.BuilderConfig):
    """One variant of the set.

    train, validation, compositions: examples in each split. fine: jitter by every pixel (`scenes.render`).
    seed: of scenes and pictures; each split has its own stream, so a larger split starts with a smaller one.
    """

    train: int = 50_000
    validation: int = 2_000
    compositions: int = 1_000
    fine: bool = False
    seed: int = 0


class CaptionedDigits(tfds.core.GeneratorBasedBuilder):
    """Splits: `train`; `validation` (unseen handwriting); `compositions` (unseen handwriting, and in every
    scene a (colour, digit) of `scenes.HELD_OUT`, none of which is in the other two)."""

    VERSION = tfds.core.Version("1.3.0")
    BUILDER_CONFIGS = (
        CaptionedDigitsConfig(name="coarse", description="Digits jittered by -4, 0 or 4 pixels."),
        CaptionedDigitsConfig(
            name="fine", description="Digits jittered by -4 to 4 pixels.", train=150_000, fine=True
        ),
        CaptionedDigitsConfig(name="tiny", description="For tests.", train=512, validation=64, compositions=64),
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return prepared.info(self, __doc__, scenes.CANVAS, caption=tfds.features.Text())

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        config = self.builder_config
        return {
            "train": self._generate_examples(0, config.train, "train", held_out=False),
            "validation": self._generate_examples(1, config.validation, "validation", held_out=False),
            "compositions": self._generate_examples(2, config.compositions, "validation", held_out=True),
        }

    def _generate_examples(self, stream: int, size: int, handwriting: str, held_out: bool) -> Iterator:
        rng = np.random.default_rng([self.builder_config.seed, stream])
        for number in range(size):
            scene = scenes.draw_scene(rng, held_out=held_out)
            picture = scenes.render(scene, handwriting, rng, fine=self.builder_config.fine)
            yield number, {"image": picture, "caption": scenes.caption(scene)}


open = partial(prepared.open_builder, CaptionedDigits)
