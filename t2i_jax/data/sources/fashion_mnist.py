"""Fashion-MNIST: `fashion_mnist`, 60,000 + 10,000 pictures of garments, shoes and bags, grey, 28 x 28 pixels.

Xiao et al., "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", 2017. The original
files have the names of MNIST's, and are taken from `DATA_DIR/downloads/manual/fashion_mnist`. Debian's package
`dataset-fashion-mnist` has them too, in /usr/share/datasets/fashion-mnist.
"""

from functools import partial

from t2i_jax.data import prepared
from t2i_jax.data.sources.mnist import Mnist

CAPTIONS = (
    "a t-shirt",
    "trousers",
    "a pullover",
    "a dress",
    "a coat",
    "a sandal",
    "a shirt",
    "a sneaker",
    "a bag",
    "an ankle boot",
)
"""Of the classes, in the order of their labels."""


class FashionMnist(Mnist, skip_registration=True):
    """Garments, shoes and bags. Splits: `train` and `test`, in the order of the files."""

    CAPTIONS = CAPTIONS
    ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


open = partial(prepared.open_builder, FashionMnist)
