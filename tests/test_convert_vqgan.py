"""`t2i convert vqgan`: checkpoints like taming's -> a run opened like any other, and hostile ones are refused."""

import functools

import numpy as np
import pytest
import torch_files
from torch_files import Op, call, name, pickled, storage, zipped

import t2i_jax
from t2i_jax import cli, tasks
from t2i_jax.cli.convert import vqgan_config
from t2i_jax.config import complete, fill_sizes, load_config
from t2i_jax.config.find import read_config
from t2i_jax.convert import vqgan
from t2i_jax.errors import UserError
from t2i_jax.loop import continuing
from t2i_jax.pipelines import converted

K, WIDTH, LATENT, CODE = 40, 32, 6, 5
WIDTHS = (32, 64, 64)  # of the levels; the last one attends


@functools.cache
def tensors(gumbel=False):
    """What a checkpoint holds, written down from taming's module tree."""
    rng, found = np.random.default_rng(0), {}

    def conv(name, into, out, side=3):
        found[f"{name}.weight"] = rng.normal(0, (2 / into) ** 0.5 / side, (out, into, side, side)).astype(
            np.float32
        )
        found[f"{name}.bias"] = rng.normal(0, 0.1, out).astype(np.float32)

    def norm(name, width):
        found[f"{name}.weight"] = rng.normal(1, 0.1, width).astype(np.float32)
        found[f"{name}.bias"] = rng.normal(0, 0.1, width).astype(np.float32)

    def block(name, into, out):
        norm(f"{name}.norm1", into)
        conv(f"{name}.conv1", into, out)
        norm(f"{name}.norm2", out)
        conv(f"{name}.conv2", out, out)
        if into != out:
            conv(f"{name}.nin_shortcut", into, out, 1)

    def attention(name, width):
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", width, width, 1)

    def middle(part):
        for number in (1, 2):
            block(f"{part}.mid.block_{number}", WIDTHS[-1], WIDTHS[-1])
        attention(f"{part}.mid.attn_1", WIDTHS[-1])

    conv("encoder.conv_in", 3, WIDTH)
    for level, (into, out) in enumerate(zip((WIDTH, *WIDTHS), WIDTHS, strict=False)):
        block(f"encoder.down.{level}.block.0", into, out)
        if level == 2:
            attention("encoder.down.2.attn.0", out)
        else:
            conv(f"encoder.down.{level}.downsample.conv", out, out)
    conv("decoder.conv_in", LATENT, WIDTHS[-1])
    for level, into in ((2, 64), (1, 64), (0, 64)):
        for number in range(2):
            block(f"decoder.up.{level}.block.{number}", WIDTHS[level] if number else into, WIDTHS[level])
            if level == 2:
                attention(f"decoder.up.2.attn.{number}", 64)
        if level:
            conv(f"decoder.up.{level}.upsample.conv", WIDTHS[level], WIDTHS[level])
    for part, width, out in (("encoder", WIDTHS[-1], LATENT), ("decoder", WIDTH, 3)):
        middle(part)
        norm(f"{part}.norm_out", width)
        conv(f"{part}.conv_out", width, out)
    conv("quant_conv", LATENT, CODE, 1)
    conv("post_quant_conv", CODE, LATENT, 1)
    if gumbel:
        conv("quantize.proj", CODE, K, 1)
    found[f"quantize.{'embed' if gumbel else 'embedding'}.weight"] = rng.normal(0, 1, (K, CODE)).astype(np.float32)
    found["loss.discriminator.main.0.weight"] = np.ones((4, 3, 4, 4), np.float32)
    found["loss.perceptual_loss.lin0.model.1.weight"] = np.ones((1, 4, 1, 1), np.float32)
    return found


def tensor_of(array):
    return torch_files.tensor(storage(torch_files.key_of(array), array.size), array.shape)


CALLBACK = name("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")


def pairs(rows) -> Op:
    """A dict, whose keys may be anything."""
    return Op(b"}(" + b"".join(torch_files.dump(key) + torch_files.dump(own) for key, own in rows) + b"u")


def lightning(found, **more):
    """A checkpoint as Lightning writes it: callbacks by class, an optimizer's moments by number."""
    moments = pairs([(0, {"step": 3, "exp_avg": tensor_of(found["quant_conv.bias"])})])
    root = {
        "epoch": 4,
        "pytorch-lightning_version": "1.0.8",
        "callbacks": pairs([(CALLBACK, {"best_model_path": "x.ckpt", "best": call(CALLBACK, 1.5)})]),
        "optimizer_states": [{"state": moments, "param_groups": [{"betas": (0.5, 0.9), "params": [0]}]}],
        "state_dict": {own: tensor_of(array) for own, array in found.items()},
    }
    return zipped(root | more, {torch_files.key_of(array): array.tobytes() for array in found.values()})


@pytest.fixture
def write(tmp_path):
    def call_(gumbel=False, bare=False, **changes):
        found = {own: x for own, x in (tensors(gumbel) | changes).items() if x is not None}
        path = tmp_path / "last.ckpt"
        if bare:
            root = {own: tensor_of(array) for own, array in found.items()}
            raw = zipped(root, {torch_files.key_of(array): array.tobytes() for array in found.values()})
        else:
            raw = lightning(found)
        path.write_bytes(raw)
        return str(path)

    return call_


@pytest.mark.slow
def test_a_converted_run_is_opened_and_used(write, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["convert", "vqgan", write(), "--image-size", "16", "--out", str(run)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{run}\n"
    assert err.endswith("2 tensors of its loss (discriminator, LPIPS) are left out\n")
    tokenizer = t2i_jax.load(run)
    assert (tokenizer.codebook_size, tokenizer.num_tokens) == (K, 16)
    np.testing.assert_array_equal(tokenizer.codebook, tensors()["quantize.embedding.weight"])
    images = np.random.default_rng(1).random((1, 16, 16, 3), np.float32)
    ids = tokenizer.tokenize(images)
    assert ids.shape == (1, 16)
    assert len(np.unique(ids)) > 1
    own = load_config("vqgan:f16")
    own.model.update(vqgan.sizes_of(tensors(), "this"))
    own.data.image_size = own.model.image_size = 16
    assert continuing.is_finished(run, own)  # nothing is to be trained where a translator names it
    continuing.check_same(run, own)


@pytest.mark.parametrize("bare", [False, True])
def test_a_model_with_gumbel_softmax(write, bare):
    """From a checkpoint, and from a state dict alone."""
    source, _ = vqgan.read(write(gumbel=True, bare=bare))
    config = vqgan_config(source, 16, "this")
    shapes = converted.shapes_of(config, np.zeros((1, 16, 16, 3), np.float32))
    params = vqgan.convert(source, shapes, "this")
    assert (config.model.quantizer, len(params)) == ("gumbel", len(source))
    np.testing.assert_array_equal(params["code/codes"], tensors(True)["quantize.embed.weight"])
    np.testing.assert_array_equal(params["code/logits/kernel"], tensors(True)["quantize.proj.weight"][:, :, 0, 0].T)
    assert vqgan.variables_of(config.model) == {}


def test_sizes_and_places_of_tensors(write):
    source, left_out = vqgan.read(write())
    config = vqgan_config(source, 64, "this")
    assert left_out == 2
    assert (config.model.multipliers, config.model.attention, config.model.blocks) == ((1, 2, 2), (2,), 1)
    assert (config.model.latent_width, config.model.code_width, config.model.quantizer) == (
        LATENT,
        CODE,
        "gradient",
    )
    for ours, theirs in {
        "encoder/down_2/attn_0/proj_out/kernel": "encoder.down.2.attn.0.proj_out.weight T",
        "encoder/downsample_1/bias": "encoder.down.1.downsample.conv.bias",
        "decoder/up_0/block_1/norm2/scale": "decoder.up.0.block.1.norm2.weight",
        "decoder/mid/block_2/conv1/bias": "decoder.mid.block_2.conv1.bias",
        "decoder/upsample_2/kernel": "decoder.up.2.upsample.conv.weight T",
    }.items():
        assert vqgan.source_of(ours, source) == theirs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder.down.1.block.0.conv2.bias": None}, "encoder.down.1.block.0.conv2.bias is missing"),
        ({"quantize.used": np.ones(3, np.float32)}, "quantize.used has no place"),
        ({"decoder.conv_out.bias": np.ones(4, np.float32)}, "has shape (4,), not (3,)"),
        ({"quantize.embedding.weight": None}, "holds no VQGAN"),
        ({"encoder.conv_in.weight": np.ones(3, np.float32)}, "holds no VQGAN"),
        ({"encoder.down.1.block.0.conv1.weight": np.ones((33, 2), np.float32)}, "holds no VQGAN"),
    ],
)
def test_tensors_that_do_not_fit(write, refused, changes, said):
    assert said in refused(write(**changes))


@pytest.fixture
def refused(capsys, tmp_path):
    def call_(*argv):
        assert cli.main(["convert", "vqgan", *argv, "--out", str(tmp_path / "run")]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert not (tmp_path / "run").exists()
        return err

    return call_


def test_what_is_no_checkpoint(write, refused, tmp_path):
    assert "No such file" in refused(str(tmp_path / "none.ckpt"))
    assert "--image-size 0 is below 1" in refused(write(), "--image-size", "0")
    assert "is not divisible by 4" in refused(write(), "--image-size", "30")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"callbacks": call(name("posix.system"), "touch canary")}, "asks for 'posix.system'"),
        ({"callbacks": call(name("pytorch_lightning_evil.run"))}, "asks for 'pytorch_lightning_evil.run'"),
        ({"callbacks": pairs([((1, 2), 3)])}, "a key that is no string"),
        ({"callbacks": pairs([(call(CALLBACK), 3)])}, "a key that is no string"),
        ({"state_dict": {"a": call(CALLBACK)}}, "holds a PassedOver among the tensors"),
        ({"state_dict": {"a": {"b": 1}}}, "holds a dict among the tensors"),
        ({"state_dict": 3}, "among the tensors of a state dict"),
        ({"state_dict": pairs([(1, tensor_of(tensors()["quant_conv.bias"]))])}, "among the tensors"),
    ],
)
def test_a_checkpoint_runs_nothing(refused, tmp_path, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(lightning(tensors(), **more))
    message = refused("last.ckpt")
    assert said in message
    assert "nothing in it was run" in message
    assert not (tmp_path / "canary").exists()


def test_numbers_are_keys_in_no_other_file(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(zipped(pickled({"a": pairs([(1, 2)])}), {}))
    with pytest.raises(UserError, match="a key that is no string"):
        torch_files.read_module(path, set())


@pytest.mark.long
def test_a_translator_may_name_it(write, data_dir, tmp_path):
    run = tmp_path / "run"
    assert cli.main(["convert", "vqgan", write(), "--image-size", "32", "--out", str(run)]) == 0
    config = complete(read_config("translator:smoke"))
    own = config.parents.tokenizer.config = complete(read_config("vqgan:f16"))
    own.model.update(vqgan.sizes_of(tensors(), "this"))
    own.data.name, own.data.image_size = config.data.name, 32
    config.parents.tokenizer.run, config.data.data_dir = str(run), str(data_dir)
    config, folder = fill_sizes(config), tmp_path / "translator"
    folder.mkdir()
    data = tasks.make(config).prepare(folder, {"tokenizer": t2i_jax.load(run)})
    assert data.splits["train"][0]["ids"].shape == (64,)


def test_without_any_codebook_its_tensor_is_missing():
    """Found by fuzzing."""
    with pytest.raises(UserError, match=r"quantize\.embedding\.weight is missing"):
        vqgan.convert({}, {"code/codes": (8, 4)}, "last.ckpt")
