"""Metrics beside torch-fidelity: its network on random weights, its formulas on the same features."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import inception_files
import jax
import numpy as np
import pytest

from t2i_jax.convert import inception as convert
from t2i_jax.evals.metrics import inception_score, kernel, manifold, moments
from t2i_jax.models import inception

torch = pytest.importorskip("torch")

TORCHVISION = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")


@pytest.fixture(scope="module")
def fidelity():
    """The package, which imports data sets and transforms of torchvision that are not needed here."""
    with pytest.MonkeyPatch.context() as patch:
        if "torchvision" not in sys.modules:
            for name in TORCHVISION:
                module = ModuleType(name)
                module.__spec__, module.__path__ = ModuleSpec(name, None), []
                module.__getattr__ = lambda _: object
                patch.setitem(sys.modules, name, module)
                if parent := name.rpartition(".")[0]:
                    setattr(sys.modules[parent], name.rpartition(".")[2], module)
        pytest.importorskip("torch_fidelity")
        from torch_fidelity import feature_extractor_inceptionv3, metric_fid, metric_isc, metric_kid, metric_prc

        yield feature_extractor_inceptionv3, metric_fid, metric_isc, metric_kid, metric_prc


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(24, 24))
    return rng.normal(size=(307, 24)) @ mix, rng.normal(0.2, 1.1, (290, 24)) @ mix


@pytest.mark.slow
def test_inception_has_its_features(fidelity, tmp_path, monkeypatch):
    network, state, path = fidelity[0], inception_files.tensors(), tmp_path / "weights.pth"
    torch.save({name: torch.tensor(x) for name, x in state.items()}, path)
    names = ["64", "192", "768", "2048", "logits_unbiased"]
    theirs = network.FeatureExtractorInceptionV3("random", names, feature_extractor_weights_path=path)

    def as_pytorch_fid(x, size, align_corners):  # which resizes otherwise, and divides by 255 / 2 and not by 128
        resized = torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)
        return (resized * 2 / 255 - 1) * 128 + 128

    monkeypatch.setattr(network, "interpolate_bilinear_2d_like_tensorflow1x", as_pytorch_fid)
    images = np.random.default_rng(1).integers(0, 256, (2, 5, 7, 3)).repeat(20, 1).repeat(20, 2).astype(np.uint8)
    expected = theirs(torch.tensor(images).permute(0, 3, 1, 2))
    ours, logits = jax.jit(inception.outputs)(convert.convert(state, "this"), images / np.float32(255))
    for name, own, other in zip(names, [*ours, logits], expected, strict=True):
        scale = np.abs(other.numpy()).max()
        assert scale > 0.05
        np.testing.assert_allclose(own, other, atol=1e-4 * scale, rtol=1e-4, err_msg=name)


def test_frechet_distance(fidelity, features):
    theirs = fidelity[1]
    expected = theirs.fid_statistics_to_metric(
        *map(theirs.fid_features_to_statistics, map(torch.tensor, features)), False
    )
    ours = moments.Frechet(moments.Moments.of(features[1]))(moments.Moments.of(features[0]))
    assert ours == pytest.approx(expected["frechet_inception_distance"], rel=1e-8)


def test_kernel_distance(fidelity, features):
    whole = {"kid_subsets": 1, "kid_subset_size": 290, "verbose": False}
    generated, reference = features[0][:290], features[1]
    expected = fidelity[3].kid_features_to_metric(torch.tensor(generated), torch.tensor(reference), **whole)
    ours = kernel.distances(generated, reference, subsets=1, size=290)
    assert ours == pytest.approx([expected["kernel_inception_distance_mean"]], rel=1e-9)


@pytest.mark.parametrize("splits", [1, 7, 10])
def test_inception_score(fidelity, splits):
    logits = 3 * np.random.default_rng(2).normal(size=(210, 1008))
    expected = fidelity[2].isc_features_to_metric(torch.tensor(logits), splits, shuffle=False)
    ours = inception_score.scores(logits, splits)
    assert ours.mean() == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert ours.std() == pytest.approx(expected["inception_score_std"], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("save_memory", [False, True])
def test_precision_and_recall(fidelity, features, save_memory):
    given = {"prc_neighborhood": manifold.NEIGHBOURS["precision"], "save_cpu_ram": save_memory, "verbose": False}
    expected = fidelity[4].prc_features_to_metric(*map(torch.tensor, features), **given)
    ours = manifold.measure(*features)
    for name in ("precision", "recall"):
        assert 0.1 < expected[name] < 0.99
        assert ours[name].mean() == pytest.approx(expected[name], rel=1e-6)  # theirs are means in float32
