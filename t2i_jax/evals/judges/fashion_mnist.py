"""Fashion-MNIST: whether a classifier trained on the real training set sees what the caption names."""

import numpy as np

from t2i_jax.data.sources.fashion_mnist import CAPTIONS
from t2i_jax.evals import garments
from t2i_jax.evals.pictures import beside, sample


def rater(pipe, seed: int):
    """See `judges`."""
    classifier = garments.Classifier(*garments.read(pipe.config.data, "train"))
    prompts = [words for words in CAPTIONS for _ in range(garments.PICTURES)]
    asked = np.repeat(np.arange(len(CAPTIONS)), garments.PICTURES)

    def rate(sampler):
        found = classifier(sample(pipe, prompts, seed, sampler=sampler))
        return garments.shares(found, asked)["overall"], garments.intervals_of(found, asked)["overall"]

    return rate


def judge(pipe, seed: int, candidates: int) -> tuple[str, dict]:
    """The fraction of right pictures by caption, as text and numbers; arguments as in `captioned_digits.judge`.

    Its column "test set" says how good the classifier is: on all pictures of the real test set.
    """
    data = pipe.config.data
    classifier = garments.Classifier(*garments.read(data, "train"))
    images, labels = garments.read(data, "test")
    real = garments.some_of_each(images, labels, garments.PICTURES, seed)
    prompts = [words for words in CAPTIONS for _ in range(garments.PICTURES)]
    asked = np.repeat(np.arange(len(CAPTIONS)), garments.PICTURES)
    found = {
        kind: (classifier(pictures.reshape(-1, *images.shape[1:])), asked)
        for kind, pictures in beside(pipe, prompts, real, seed, candidates).items()
    }
    found["test set"] = classifier(images), labels
    columns = {kind: garments.shares(*own) for kind, own in found.items()}
    ends = {kind: garments.intervals_of(*own) for kind, own in found.items()}
    results = {"pictures": len(prompts), "classified": columns, "intervals": {"classified": ends}}
    return garments.format_table(columns, ends), results
