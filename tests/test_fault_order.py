"""The metric that is for a fault notices it: real scenes in a model's place, as in `benchmarks/faults.py`."""

import numpy as np
import pytest
from scipy import ndimage

from t2i_jax.evals import diversity, faithfulness
from t2i_jax.evals.detector import Detector
from t2i_jax.evals.metrics import kernel, manifold
from t2i_jax.evals.metrics.moments import Frechet, Moments

pytestmark = pytest.mark.slow
DISTINCT = 12  # pictures of the collapsed generator


def features(images):
    """Mean and spread of each colour at 4 x 4 places, [B, 96]."""
    places = images.reshape(len(images), 4, 8, 4, 8, 3) / 255
    return np.concatenate([places.mean((2, 4)), places.std((2, 4))], -1).reshape(len(images), -1)


@pytest.fixture(scope="module")
def scores():
    prompts = diversity.make_open_prompts(0, per_kind=100)
    drawn, real = (faithfulness.real_scenes(prompts, 1, seed)[:, 0] for seed in (0, 1))
    rng, detector = np.random.default_rng(0), Detector()
    sets = {
        "good": drawn,
        "collapsed": drawn[rng.choice(DISTINCT, len(drawn))],
        "ignores captions": drawn[rng.permutation(len(drawn))],
        "blurred": ndimage.gaussian_filter(drawn, (0, 1.5, 1.5, 0)),
    }
    found, reference = {}, features(real)
    for name, images in sets.items():
        own = features(images)
        right = [faithfulness.judge(*pair) for pair in zip(prompts, detector(images), strict=True)]
        found[name] = {
            "faithful": np.mean(right),
            "fd": Frechet(Moments.of(reference))(Moments.of(own)),
            "kd": kernel.discrepancy(own, reference),
            **{metric: values.mean() for metric, values in manifold.measure(own, reference).items()},
        }
    return found


def test_each_fault_is_noticed_by_what_it_is_for(scores):
    good = scores["good"]
    assert good["faithful"] > 0.95
    for fault in ("collapsed", "blurred"):
        assert scores[fault]["fd"] > 2 * good["fd"]
        assert scores[fault]["kd"] > good["kd"]
    assert scores["collapsed"]["recall"] < 0.2 < good["recall"]
    assert scores["collapsed"]["coverage"] < 0.5 * good["coverage"]
    assert scores["ignores captions"]["faithful"] < 0.2


def test_distances_are_blind_to_captions(scores):
    for metric in ("fd", "kd", "precision", "recall", "density", "coverage"):
        assert scores["ignores captions"][metric] == pytest.approx(scores["good"][metric], rel=1e-6, abs=1e-9)
