"""Networks whose features are compared: InceptionV3, VGG16 and AlexNet of LPIPS, and CLIP."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float32, UInt8

from t2i_jax import files, runs
from t2i_jax.convert import weights as released
from t2i_jax.errors import UserError
from t2i_jax.models import inception, lpips
from t2i_jax.pipelines.batches import in_batches
from t2i_jax.pipelines.clip import Clip

ORIGIN = "origin.json"  # what the weights were converted from
CLIPS = ("config.json", "tokenizer.json")  # what lies beside CLIP's weights
BATCH = 32  # pictures at a time


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A network that gives each picture a vector.

    Attributes:
      network: "inception", "vgg16", "alexnet", or "clip-" with the sides of its patches and
        pictures, and D: "clip-14-336-768".
      title: of its Frechet distance: "FID" of the released InceptionV3 alone, else "FD-" and the network.
      digest: of its weights.
      width: D, of a vector.
      resize: what it does to pictures, in words.
      smallest: pixels a side that a picture must have.
      classes: whether it gives logits of classes as well, for the Inception Score.
      encode_texts: features of texts in the space of the pictures', of CLIP alone; else None.
    """

    network: str
    title: str
    digest: str
    width: int
    resize: str
    smallest: int
    classes: bool
    _apply: Callable[[np.ndarray], np.ndarray]
    encode_texts: Callable[[Sequence[str]], np.ndarray] | None = None

    @property
    def about(self) -> dict[str, str]:
        """What says which features these are."""
        return {"network": self.network, "digest": self.digest, "resize": self.resize}

    def __call__(self, images: UInt8[np.ndarray, "B H W C"]) -> Float32[np.ndarray, "B D"]:
        """Features, and the logits behind them where there are `classes`.

        Raises:
          UserError: pictures are too small.
        """
        if (side := min(images.shape[1:3])) < self.smallest:
            raise UserError(
                f"pictures of {side} pixels a side are too small for {self.network}; {self.smallest} will do"
            )
        return self._apply(images)

    def stream(self, images: Iterable[np.ndarray]) -> Iterator[Float32[np.ndarray, "B D"]]:
        """Features of pictures uint8 [H, W, C], some at a time."""
        batch: list[np.ndarray] = []
        for image in images:
            batch.append(image)
            if len(batch) == BATCH:
                yield self(np.stack(batch))
                batch = []
        if batch:
            yield self(np.stack(batch))


def load(folder: str | Path) -> Extractor:
    """The network in a folder that `t2i convert inception` or `t2i convert lpips` made, or in CLIP's as released.

    Raises:
      UserError: there is none, or it is corrupt.
    """
    if all((Path(folder) / name).is_file() for name in CLIPS):
        return _clip(folder)
    path = Path(folder) / runs.WEIGHTS
    way_out = "name a folder that t2i convert inception or lpips made, or one of CLIP's with tokenizer.json"
    try:
        weights, _, _, digest = runs.load_weights(path)
        origin = files.read_json(Path(folder) / ORIGIN) if (Path(folder) / ORIGIN).exists() else {}
    except files.CorruptError as error:
        raise UserError(f"{error}; {way_out}") from None
    found = {name: x.shape for name, x in flatten_dict(weights, sep="/").items()}
    weights = jax.device_put(weights)
    if found == inception.shapes():
        title = "FID" if origin.get("released") else "FD-inception"
        resize = f"bilinear to {inception.SIDE} x {inception.SIDE}, no antialiasing"
        apply = partial(in_batches, partial(_inception, weights))
        return Extractor("inception", title, digest, inception.WIDTHS[-1], resize, 1, True, apply)
    network = next((name for name in lpips.NETWORKS if found == lpips.shapes(name)), None)
    if network is None:
        raise UserError(f"{path} holds neither InceptionV3 nor LPIPS; {way_out}")
    apply, smallest = partial(_lpips, weights), lpips.smallest_side(weights)
    width = jax.eval_shape(apply, np.zeros((1, 32, 32, 3), np.uint8)).shape[-1]
    return Extractor(
        network, f"FD-{network}", digest, width, "none", smallest, classes=False, _apply=partial(in_batches, apply)
    )


def _clip(folder):
    clip = Clip(folder)
    vision, width = clip.fields["vision"], clip.fields["features"]
    network = f"clip-{vision['patch_size']}-{vision['image_size']}-{width}"
    return Extractor(
        network,
        f"FD-{network}",
        files.sha256_of(released.find(folder)),
        width,
        resize=f"bicubic, antialiased, shorter side to {vision['image_size']}, its centre",
        smallest=1,
        classes=False,
        _apply=clip.encode_images,
        encode_texts=clip.encode_texts,
    )


@jax.jit
def _inception(weights, images):
    outputs, logits = inception.outputs(weights, images / 255)
    return jax.numpy.concatenate([outputs[-1], logits], -1)


@jax.jit
def _lpips(weights, images):
    """The last level, averaged over its places."""
    return jax.numpy.mean(lpips.features(weights, images / 255)[-1], axis=(1, 2))
