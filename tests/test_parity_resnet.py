"""ResNets against torch `transformers`, through a file it saved and the real loading code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.convert import resnet
from t2i_jax.models.resnet import ResNet

torch = pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
transformers = pytest.importorskip("transformers", reason="transformers comes with the extra `parity`")

DEPTHS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}
TINY = {"width": 8, "stage_layers": (2, 1, 2, 1)}


def reference(depths, width=64, classifier=False):
    """Random weights, and statistics far from those of a fresh model, so that a wrong norm shows."""
    hidden = [4 * width * 2**i for i in range(4)]
    config = transformers.ResNetConfig(depths=depths, embedding_size=width, hidden_sizes=hidden, num_labels=3)
    kind = transformers.ResNetForImageClassification if classifier else transformers.ResNetModel
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for norm in norms(model):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
    return model


def norms(model):
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def features(model, images):
    """The last feature map [B, h, w, C]."""
    with torch.no_grad():
        maps = model(torch.tensor(images).permute(0, 3, 1, 2)).last_hidden_state
    return maps.permute(0, 2, 3, 1).numpy()


def pictures(*shape):
    return np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)


def loaded(model, saved, folder):
    """Our variables, from what torch saves."""
    saved.save_pretrained(folder)
    images = jnp.zeros((1, 32, 32, 3))
    return resnet.load(folder, jax.eval_shape(model.init, jax.random.key(0), images))


def assert_close(ours, theirs, limit):
    """Within `limit` of the reference's maximum, everywhere; and the reference says something."""
    assert ours.shape == theirs.shape
    assert np.mean(theirs > 0) > 0.1
    assert np.abs(ours - theirs).max() <= limit * np.abs(theirs).max()


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101])
def test_a_full_size_model_matches_torch(depth, tmp_path):
    model, theirs = ResNet(depth=depth), reference(DEPTHS[depth])
    variables = loaded(model, theirs, tmp_path)
    apply = jax.jit(model.apply)
    for images in (pictures(1, 224, 224), pictures(2, 97, 131)):
        assert_close(np.asarray(apply(variables, images)), features(theirs, images), 1e-4)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_cut_model_matches_the_stage_of_a_classifier(stage, tmp_path):
    model, theirs = ResNet(**TINY, stage=stage), reference([2, 1, 2, 1], 8, classifier=True)
    images = pictures(2, 35, 64)  # even after the stem, where "SAME" would pad on one side alone
    with torch.no_grad():
        states = theirs(torch.tensor(images).permute(0, 3, 1, 2), output_hidden_states=True).hidden_states
    ours = jax.jit(model.apply)(loaded(model, theirs, tmp_path), images)
    assert_close(np.asarray(ours), states[stage].permute(0, 2, 3, 1).numpy(), 1e-5)


def test_training_matches_torch_but_for_the_unbiased_variance(tmp_path):
    model, theirs = ResNet(**TINY), reference([2, 1, 2, 1], 8)
    before = loaded(model, theirs, tmp_path / "before")
    images = pictures(3, 65, 97)
    output, moved = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(before, images)

    def biased(norm, inputs, _):
        # torch moves towards n / (n - 1) times the variance it normalises by; take the factor back.
        n = inputs[0].numel() / inputs[0].shape[1]
        start = 0.9 * norm.before
        norm.running_var.copy_(start + (norm.running_var - start) * (n - 1) / n)

    for norm in norms(theirs):
        norm.before = norm.running_var.clone()
        norm.register_forward_hook(biased)
    assert_close(np.asarray(output), features(theirs.train(), images), 1e-4)
    after = loaded(model, theirs, tmp_path / "after")["batch_stats"]
    leaves = zip(*map(jax.tree.leaves, (moved["batch_stats"], after, before["batch_stats"])), strict=True)
    for ours, expected, old in leaves:
        assert np.abs(expected - old).max() > 0.01
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
