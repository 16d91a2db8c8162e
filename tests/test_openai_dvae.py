"""`t2i convert openai-dvae`: files that look like OpenAI's -> a run that is opened like any other."""

import functools
import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from torch_files import saved

import t2i_jax
from t2i_jax import cli, files, runs, tasks
from t2i_jax.cli.convert import openai_dvae_config
from t2i_jax.config import complete, fill_sizes, load_config
from t2i_jax.config.find import read_config
from t2i_jax.convert import openai_dvae
from t2i_jax.errors import UserError
from t2i_jax.loop import continuing
from t2i_jax.pipelines import converted

K, WIDTH, CODE_WIDTH = 24, 8, 5


@functools.cache
def tensors(blocks=1):
    """What the two files hold, written down from OpenAI's module tree: OIHW, ids of blocks from 1."""
    rng, found = np.random.default_rng(0), {"encoder": {}, "decoder": {}}

    def conv(part, name, out, in_, side):
        found[part][f"blocks.{name}.w"] = rng.normal(0, (2 / in_) ** 0.5 / side, (out, in_, side, side)).astype(
            np.float32
        )
        found[part][f"blocks.{name}.b"] = rng.normal(0, 0.1, out).astype(np.float32)

    conv("encoder", "input", WIDTH, 3, 7)
    conv("decoder", "input", CODE_WIDTH, K, 1)
    for part, kernels, widths, channels in (
        ("encoder", (3, 3, 3, 1), (1, 2, 4, 8), WIDTH),
        ("decoder", (1, 3, 3, 3), (8, 4, 2, 1), CODE_WIDTH),
    ):
        for group, times in enumerate(widths, start=1):
            out = times * WIDTH
            for block in range(1, blocks + 1):
                place = f"group_{group}.block_{block}"
                if channels != out:
                    conv(part, f"{place}.id_path", out, channels, 1)
                for number, side in enumerate(kernels, start=1):
                    sizes = (channels, *[out // 4] * 3, out)
                    conv(part, f"{place}.res_path.conv_{number}", sizes[number], sizes[number - 1], side)
                channels = out
    conv("encoder", "output.conv", K, 8 * WIDTH, 1)
    conv("decoder", "output.conv", 6, WIDTH, 1)
    return found


@pytest.fixture
def write(tmp_path):
    """Write both files, with changed tensors where told; returns their paths."""

    def call(*, old=False, blocks=1, **changes):
        paths = []
        for part, of in (("encoder", openai_dvae.ENCODER), ("decoder", openai_dvae.DECODER)):
            own = tensors(blocks)[part] | changes.get(part, {})
            own = {name: array for name, array in own.items() if array is not None}
            path = tmp_path / f"{part}.pkl"
            path.write_bytes(saved(of, own, old=old))
            paths.append(str(path))
        return paths

    return call


@pytest.fixture
def refusal(capsys, tmp_path):
    def call(*argv):
        assert cli.main(["convert", "openai-dvae", *argv]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("t2i: ")
        assert err.count("\n") == 1
        assert not list(tmp_path.glob("run*"))
        return err

    return call


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_a_converted_run_is_opened_and_used(write, tmp_path, capsys, old):
    run = tmp_path / "run"
    assert cli.main(["convert", "openai-dvae", *write(old=old, blocks=2), "--out", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}\n"
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "model.safetensors"]
    tokenizer = t2i_jax.load(run)
    assert (tokenizer.codebook_size, tokenizer.num_tokens) == (K, 1024)
    np.testing.assert_array_equal(tokenizer.codebook, tensors(2)["decoder"]["blocks.input.w"][:, :, 0, 0].T)
    images = np.random.default_rng(1).random((1, 8, 8, 3), np.float32).repeat(32, 1).repeat(32, 2)
    ids = tokenizer.tokenize(images)
    assert ids.shape == (1, 1024)
    assert len(np.unique(ids)) > 1
    back = tokenizer.detokenize(ids)
    assert back.shape == images.shape
    assert 0 <= back.min() < back.max() <= 1


def test_its_config_is_that_of_the_config_file(write):
    config = json.loads(openai_dvae_config(openai_dvae.read(*write(blocks=2)), 256).to_json())
    assert config.pop("converted_from") == "openai-dvae"
    expected = json.loads(load_config("dvae:openai").to_json())
    assert expected["model"] | {"codebook_size": K, "width": WIDTH, "code_width": CODE_WIDTH} == config.pop("model")
    del expected["model"]
    assert config == expected


def test_every_tensor_lies_where_it_belongs(write):
    source = openai_dvae.read(*write())
    config = openai_dvae_config(source, 256)
    shapes = converted.shapes_of(config, np.zeros((1, 256, 256, 3), np.float32))
    params = openai_dvae.convert(source, shapes)
    assert len(params) == len(source) == len(shapes)
    own = tensors()["encoder"]
    np.testing.assert_array_equal(
        params["encoder/group_2_block_1/conv_3/kernel"][1, 2, 3, 0],
        own["blocks.group_2.block_1.res_path.conv_3.w"][0, 3, 1, 2],
    )
    np.testing.assert_array_equal(
        params["encoder/group_2_block_1/shortcut/bias"], own["blocks.group_2.block_1.id_path.b"]
    )
    np.testing.assert_array_equal(params["codes_bias"], tensors()["decoder"]["blocks.input.b"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": {"blocks.extra.w": np.ones(3, np.float32)}}, "encoder.blocks.extra.w"),
        ({"encoder": {"blocks.group_3.block_1.res_path.conv_2.b": None}}, "block_1.res_path.conv_2.b is missing"),
        ({"decoder": {"blocks.group_4.block_1.id_path.w": None}}, "decoder.blocks.group_4.block_1.id_path.w"),
        ({"decoder": {"blocks.output.conv.b": np.ones(3, np.float32)}}, "has shape (3,), not (6,)"),
        ({"encoder": {"blocks.output.conv.w": np.ones((K + 1, 64, 1, 1), np.float32)}}, ", not (24, 64, 1, 1)"),
        ({"encoder": {"blocks.input.w": None}}, "no first convolution"),
        ({"decoder": {"blocks.input.w": np.ones(3, np.float32)}}, "no first convolution"),
        ({"encoder": {"blocks.input.w": np.ones((6, 3, 7, 7), np.float32)}}, "width 6 is not divisible by 4"),
        ({"encoder": {"blocks.input.w": np.ones((), np.float32)}}, "no first convolution"),
        ({"decoder": {"blocks.output.conv.w": np.ones(6, np.float32)}}, "decoder.blocks.output.conv.w"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(write, refusal, tmp_path, changes, said):
    assert said in refusal(*write(**changes), "--out", str(tmp_path / "run"))


def test_files_that_are_not_the_ones(write, refusal, tmp_path):
    encoder, decoder = write()
    out = ["--out", str(tmp_path / "run")]
    assert "holds a dall_e.decoder.Decoder" in refusal(decoder, encoder, *out)
    assert "encoder's file first" in refusal(encoder, encoder, *out)
    assert "No such file" in refusal(encoder, str(tmp_path / "none.pkl"), *out)
    (tmp_path / "text.pkl").write_text("hello")
    assert "text.pkl was not written by torch.save" in refusal(str(tmp_path / "text.pkl"), decoder, *out)
    assert "--out" in refusal(encoder, decoder)
    assert "is there already" in refusal(encoder, decoder, "--out", encoder)
    assert "cannot be written" in refusal(encoder, decoder, "--out", "/proc/run")


def test_an_unknown_format_is_named(capsys):
    assert cli.main(["convert", "other", "--out", "x"]) == 2
    assert "openai-dvae" in capsys.readouterr().err


# --- as the tokenizer that a translator names


@pytest.fixture
def small(write, tmp_path):
    """A converted run for 32 x 32 pictures, and the config of a translator that names it."""
    source = openai_dvae.read(*write())
    config = openai_dvae_config(source, 256)
    config["model"]["image_size"] = 32
    shapes = converted.shapes_of(config, np.zeros((1, 32, 32, 3), np.float32))
    run = tmp_path / "tokenizer"
    converted.write_run(run, config, openai_dvae.convert(source, shapes))
    asked = complete(read_config("translator:smoke"))
    own = asked.parents.tokenizer.config = complete(read_config("dvae:openai"))
    own.model.update({"codebook_size": K, "width": WIDTH, "code_width": CODE_WIDTH, "blocks": 1})
    own.data.name, own.data.image_size = asked.data.name, 32
    asked.parents.tokenizer.run = str(run)
    return run, fill_sizes(asked)


def test_a_translator_may_name_it(small, data_dir, tmp_path):
    run, config = small
    config.data.data_dir = str(data_dir)
    assert continuing.is_finished(run, config.parents.tokenizer.config)  # nothing is to be trained
    continuing.check_same(run, config.parents.tokenizer.config)
    folder = tmp_path / "translator"
    folder.mkdir()
    data = tasks.make(config).prepare(folder, {"tokenizer": t2i_jax.load(run)})
    assert data.splits["train"][0]["ids"].shape == (16,)
    assert (run / "tokens" / "captioned_digits-tiny" / "train").is_dir()


def test_a_translator_may_name_it_for_pictures_of_another_size(small, data_dir, tmp_path):
    run, config = small
    content = files.read_json(run / runs.CONFIG)
    content["model"]["image_size"] = content["data"]["image_size"] = 256  # what it was converted for
    files.write_json(run / runs.CONFIG, content)
    config.data.data_dir = str(data_dir)
    continuing.check_same(run, config.parents.tokenizer.config)
    folder = tmp_path / "translator"
    folder.mkdir()
    task = tasks.make(config)
    data = task.prepare(folder, {"tokenizer": t2i_jax.load(run)})
    assert data.splits["train"][0]["ids"].shape == (16,)
    assert task.tokenizer.shape == (32, 32, 3)


def test_of_a_converted_run_its_model_counts_and_not_how_it_would_be_trained(small):
    run, config = small
    config.parents.tokenizer.config.optim.lr, config.parents.tokenizer.config.data.train = 1.0, "train[:5]"
    continuing.check_same(run, config.parents.tokenizer.config)
    config.parents.tokenizer.config.model.width = 16
    with pytest.raises(UserError, match=r"model.width: 8 -> 16"):
        continuing.check_same(run, config.parents.tokenizer.config)


def test_it_is_judged_on_another_set_than_its_own(small, data_dir, tmp_path, capsys):
    run, _ = small
    argv = ["doctor", "--run", str(run), "--data-dir", str(data_dir), "--out", str(tmp_path / "worst.png")]
    assert cli.main([*argv, "--data", "captioned_digits/tiny", "--split", "validation[:9]"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("captioned_digits/tiny, validation[:9]: 9 pictures of 16 tokens\n")
    assert "verdict: " in said


def test_weights_that_were_damaged_later_are_seen(small):
    run, config = small
    raw = bytearray((run / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (run / "model.safetensors").write_bytes(raw)
    assert not continuing.is_finished(run, config.parents.tokenizer.config)
    with pytest.raises(UserError, match="checksum"):
        t2i_jax.load(run)


def test_a_run_that_cannot_be_written_whole_is_not_there(small, monkeypatch, tmp_path):
    run, _ = small
    params, _, _, _ = runs.load_weights(run / "model.safetensors")

    def full(*_):
        raise UserError("No space left on device")

    monkeypatch.setattr(runs, "write_weights", full)
    with pytest.raises(UserError, match="No space"):
        converted.write_run(tmp_path / "other", ConfigDict(files.read_json(run / "config.json")), params)
    assert not list(tmp_path.glob("other*"))


@pytest.mark.parametrize("side", [0, 12, -8])
def test_sides_that_no_token_grid_fits(side, tmp_path, capsys):
    argv = ["convert", "openai-dvae", "encoder.pkl", "decoder.pkl", "--out", str(tmp_path / "run")]
    assert cli.main([*argv, "--image-size", str(side)]) == 2
    assert f"--image-size {side} is no multiple of 8" in capsys.readouterr().err
