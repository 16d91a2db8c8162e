"""Pictures that are not square, and sizes that a tokenizer was not trained for."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from fakes import fake_variables
from folders import noise, write_numbered
from PIL import Image

import t2i_jax
from t2i_jax import cli, models, runs
from t2i_jax.config import load_config
from t2i_jax.data import images
from t2i_jax.data.sources import folder
from t2i_jax.errors import UserError
from t2i_jax.pipelines.tokenizer import Tokenizer
from t2i_jax.ranges import sides

CONVOLUTIONS = ("vqvae:smoke", "vqgan:smoke", "dvae:smoke")
SMALL = {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32}
SHORT = {"steps": 2, "batch_size": 4, "optim.warmup": 1, "eval_every": 2, "checkpoint_every": 2}


def flags(fields: dict, path: str = "config") -> list[str]:
    return [f"--{path}.{field}={value}" for field, value in fields.items()]


# --- pictures


@pytest.mark.parametrize(
    ("size", "box"), [((40, 20), (40, 0, 80, 80)), ((20, 60), (0, 20, 120, 60)), (40, (20, 0, 100, 80))]
)
def test_a_crop_is_the_middle_of_the_picture_scaled_by_pillow(size, box):
    picture, (height, width) = noise(0, 120, 80), sides(size)
    expected = np.array(picture.resize((width, height), Image.Resampling.LANCZOS, box=box))
    np.testing.assert_array_equal(images.crop(picture, size), expected)


def test_random_crops_have_the_shape_that_is_asked_for():
    """Of a picture whose colours are places: red grows to the right, green downwards."""
    places = np.stack([*np.indices((60, 90))[::-1], np.zeros((60, 90))], -1)
    picture, rng = Image.fromarray(np.uint8(places)), np.random.default_rng(0)
    heights, tops, lefts = [], [], []
    for _ in range(200):
        pixels = images.random_crop(picture, (12, 8), (0.5, 0.8), rng).astype(float)
        assert pixels.shape == (12, 8, 3)
        across, down = (pixels[6, -1, 0] - pixels[6, 0, 0]) * 8 / 7, (pixels[-1, 4, 1] - pixels[0, 4, 1]) * 12 / 11
        assert across == pytest.approx(down * 2 / 3, abs=2.5)
        heights.append(down)
        tops.append(pixels[0, 4, 1])
        lefts.append(pixels[6, 0, 0])
    assert 28 < min(heights) < 34
    assert 45 < max(heights) < 50  # 0.8 of 60
    assert min(tops) < 4
    assert min(lefts) < 5
    assert max(lefts) > 90 - 40
    whole = images.random_crop(noise(0, 40, 60), (12, 8), (1.0, 1.0), rng)
    np.testing.assert_array_equal(whole, images.crop(noise(0, 40, 60), (12, 8)))


def test_random_squares_are_drawn_as_ever():
    """A share of the shorter side, then places from the left and from the top."""
    for picture in (noise(1, 50, 33), noise(1, 33, 50)):
        rng = np.random.default_rng(3)
        side = rng.uniform(0.3, 0.9) * min(picture.size)
        left, top = (rng.uniform(0, length - side) for length in picture.size)
        box = left, top, left + side, top + side
        expected = np.array(picture.resize((16, 16), Image.Resampling.LANCZOS, box=box))
        found = images.random_crop(picture, 16, (0.3, 0.9), np.random.default_rng(3))
        np.testing.assert_array_equal(found, expected)


def prepared(tmp_path, **options):
    folder.open("train", str(tmp_path / "data"), dir=str(tmp_path / "own"), **{"validation_share": 0.0, **options})
    return {path.name for path in (tmp_path / "data" / "folder").iterdir()}


def test_a_square_keeps_the_name_of_what_was_prepared_and_other_shapes_have_their_own(tmp_path):
    (tmp_path / "own").mkdir()
    for number in range(2):
        (tmp_path / "own" / f"{number}.ppm").write_bytes(b"P6 8 8 255\n" + bytes(range(number, number + 192)))
        (tmp_path / "own" / f"{number}.txt").write_text(f"picture {number}")
    name = "own-f82c82a917a3"  # as before there were other shapes
    for size in (16, [16, 16], (16, 16)):
        assert prepared(tmp_path, image_size=size) == {name}
    assert len(prepared(tmp_path, image_size=(16, 24)) | prepared(tmp_path, image_size=(24, 16))) == 3


@pytest.mark.parametrize("config", ["translator:folder", "translator:emoji", "dalle:smoke", "prior:smoke"])
def test_sizes_that_follow_are_those_of_rows_and_columns(config):
    config = load_config(config, ["--config.data.image_size=32,64"])
    own = config.parents.tokenizer.config
    assert config.data.image_size == own.data.image_size == own.model.image_size == (32, 64)
    finest = models.build(own).layout[-1]
    assert 2 * finest.height == finest.width
    if "grid" in config.model:
        assert config.model.grid[1] == finest.width
        assert config.model.grid[0] * config.model.grid[1] == config.model.num_tokens
    again = type(config)(json.loads(config.to_json()))  # as a run keeps it
    assert models.build(again.parents.tokenizer.config).image_size == (32, 64)


@pytest.mark.parametrize("square", ["48", "48,48", "[48, 48]"])
def test_a_square_is_one_number_however_it_is_written(square):
    assert load_config("vqvae:smoke", [f"--config.data.image_size={square}"]).data.image_size == 48
    own = "--config.parents.tokenizer.config.data.image_size"
    both = load_config("translator:folder", [f"--config.data.image_size={square}", f"{own}={square}"])
    assert both.to_json() == load_config("translator:folder", ["--config.data.image_size=48"]).to_json()
    fields = [f"--config.{part}.image_size={square}" for part in ("data", "model")]
    assert load_config("vqvae:smoke", fields).model.image_size == 48


@pytest.mark.parametrize(
    ("config", "size", "said"),
    [
        (
            "translator:folder",
            "48,50",
            "config.parents.tokenizer.config.model: image_size (48, 50) is not divisible by 16;",
        ),
        ("vqvae:smoke", "50,48", "config.model: image_size (50, 48) is not divisible by 4; give multiples of 4 as"),
        ("dvae:smoke", "33", "config.model: image_size 33 is not divisible by "),
        ("vae:smoke", "30,32", "config.model: image_size (30, 32) is not divisible by 4; give multiples of 4 as"),
        ("vqvae:smoke", "16,32,3", "config.data.image_size is (16, 32, 3); give one side, or height and width"),
        ("vqvae:smoke", "0,32", "config.data.image_size 0 is below 1;"),
        ("vqvae:smoke", "wide", "config.data.image_size 'wide' is no number;"),
        ("vqvae:smoke", "{1: 2}", "config.data.image_size {1: 2} is no number;"),
        ("vqvae:smoke", "None", "config.data.image_size None is no number;"),
    ],
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_prepared(config, size, said):
    with pytest.raises(UserError) as error:
        load_config(config, [f"--config.data.image_size={size}"])
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "field", "said"),
    [
        (
            "vqvae:smoke",
            "model",
            "config.model.image_size is (64, 96), but 32 follows from config.data.image_size 32;",
        ),
        (
            "translator:folder",
            "parents.tokenizer.config.data",
            "config.parents.tokenizer.config.data.image_size is (64, 96), but config.data.image_size is 64;",
        ),
    ],
)
def test_a_size_that_differs_from_that_of_the_data_is_refused(config, field, said):
    with pytest.raises(UserError) as error:
        load_config(config, [f"--config.{field}.image_size=64,96"])
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


# --- tokenizers


@pytest.fixture(params=CONVOLUTIONS)
def pair(request, tmp_path):
    """A tokenizer of 32 x 32 pixels and values of its own, opened; and the model and its variables."""
    return of_config(request.param, tmp_path)


def of_config(name, tmp_path):
    config = load_config(name)
    model = models.build(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    variables = dict(fake_variables(shapes))
    runs.write_config(runs.make_folder(tmp_path), config)
    runs.write_weights(tmp_path, variables["params"], {k: v for k, v in variables.items() if k != "params"}, 2)
    return Tokenizer(tmp_path), model, variables


def plainly(model, variables, pictures):
    """Ids [B, h, w] by the encoder alone, which knows no size, and the nearest codes by hand."""
    found = model.apply(variables, jnp.asarray(pictures), method="encode")
    if not isinstance(found, dict):
        return np.asarray(found.argmax(-1))
    features, codes = np.asarray(found["code"], np.float64), np.asarray(model.apply(variables, method="codebook"))
    distances = ((features[:, :, None] - codes) ** 2).sum(-1)
    rows = pictures.shape[1] // model.downsampling
    return distances.argmin(-1).reshape(len(pictures), rows, -1)


@pytest.mark.parametrize("size", [(24, 40), (48, 48)])
def test_a_fully_convolutional_tokenizer_reads_every_size(pair, size):
    tokenizer, model, variables = pair
    pictures = np.random.default_rng(1).random((3, *size, 3), np.float32)
    ids, expected = tokenizer.tokenize(pictures), plainly(model, variables, pictures)
    np.testing.assert_array_equal(ids, expected.reshape(3, -1))
    other = tokenizer.at_size(size)
    (grid,) = other.layout
    assert (grid.height, grid.width) == expected.shape[1:]
    assert other.num_tokens == ids.shape[1] == len(other.cells) == len(other.position_features)
    assert other.cells[-1][2:] == size
    assert f"{size[0]} x {size[1]} x 3 pictures <-> {ids.shape[1]} tokens" in repr(other)
    restored = tokenizer.detokenize(ids, size)
    assert restored.shape == pictures.shape
    np.testing.assert_array_equal(other.detokenize(ids), restored)
    changed, last = ids.copy(), grid.width - 1  # of the first row: the top right
    changed[:, last] = (changed[:, last] + 1) % tokenizer.codebook_size
    moved = np.abs(tokenizer.detokenize(changed, size) - restored).sum((0, 3))
    row, column = np.unravel_index(moved.argmax(), size)
    assert row < size[0] / 2
    assert column >= size[1] / 2
    assert tokenizer.at_size(32) is tokenizer.at_size((32, 32)) is tokenizer
    assert tokenizer.shape == (32, 32, 3)


def test_what_a_decoder_makes_of_a_grid_is_what_detokenizing_its_rows_makes(tmp_path):
    tokenizer, model, variables = of_config("vqvae:smoke", tmp_path)
    ids = np.random.default_rng(0).integers(0, 64, (2, 6 * 10))
    codes = rearrange(tokenizer.codebook[ids], "b (h w) d -> b h w d", h=6)
    pixels = model.apply(variables, jnp.asarray(codes), method=lambda model, codes: model.decoder(codes))
    np.testing.assert_allclose(
        tokenizer.detokenize(ids, (24, 40)), np.clip((np.asarray(pixels) + 1) / 2, 0, 1), atol=1e-6
    )


def test_sizes_that_a_tokenizer_cannot_have(tmp_path):
    tokenizer, *_ = of_config("vqvae:smoke", tmp_path / "a")
    for size in ((30, 32), (32, 30)):
        with pytest.raises(UserError, match=rf"image_size \({size[0]}, {size[1]}\) is not divisible by 4"):
            tokenizer.tokenize(np.zeros((1, *size, 3), np.uint8))
    patches, *_ = of_config("patch_vqvae:smoke", tmp_path / "b")
    said = (
        r"patch_vqvae-smoke is for pictures of image_size 32, not \(32, 48\): a patch_vqvae has parameters of its"
    )
    with pytest.raises(UserError, match=said):
        patches.at_size((32, 48))
    with pytest.raises(
        UserError, match=re.escape("pictures have shape (1, 32, 48, 3); this run reads [B, 32, 32, 3]")
    ):
        patches.tokenize(np.zeros((1, 32, 48, 3), np.uint8))


# --- from a folder to pictures


@pytest.fixture(scope="module", params=[("emoji", "vqvae"), ("folder", "patch_vqvae")], ids=lambda names: names[1])
def trained(request, tmp_path_factory):
    """A translator of pictures of 32 x 48 pixels and its tokenizer, two steps each."""
    variant, tokenizer = request.param
    folder = tmp_path_factory.mktemp(tokenizer)
    write_numbered(folder / "own", range(30))
    given = {
        "data.dir": folder / "own",
        "data.data_dir": folder / "data",
        "data.image_size": "32,48",
        "data.validation_share": 0.0,
        **SHORT,
    }
    given |= {f"model.{part}.{field}": value for part in ("encoder", "decoder") for field, value in SMALL.items()}
    given |= {"shown_captions": "()", "parents.tokenizer.run": folder / "tokenizer", "optim.muon": 0.0}
    own = {**SHORT, "model.codebook_size": 256, "model.width": 16, "kmeans_examples": 30}
    command = ["train", f"--config=translator:{variant}", f"--workdir={folder / 'run'}"]
    assert cli.main([*command, *flags(given), *flags(own, "config.parents.tokenizer.config")]) == 0
    return folder / "run"


@pytest.mark.slow
def test_pictures_that_are_not_square_from_a_folder_to_a_prompt(trained, tmp_path):
    pipe = t2i_jax.load(trained)
    drawn = pipe(["picture 3", "picture 5"], num_images=2, seed=1)
    assert (drawn.shape, drawn.dtype) == ((2, 2, 32, 48, 3), np.uint8)
    assert "32 x 48 x 3 pictures" in repr(pipe)
    *_, (share, last) = pipe.stream("picture 3", num_images=2, seed=1, parts=3)
    assert share == 1
    np.testing.assert_array_equal(last, drawn[0])
    seen = pipe.insight("picture 3", seed=1)
    assert np.max(seen.cells, 0).tolist()[2:] == [32, 48]
    grid = tmp_path / "grid.png"
    assert cli.main(["sample", f"--run={trained}", "--prompt=picture 3", "-n=2", f"--out={grid}"]) == 0
    with Image.open(grid) as opened:
        assert opened.width > opened.height
    finest = pipe.tokenizer.layout[-1]
    assert (finest.height, finest.width) == {"vqvae-emoji": (8, 12)}.get(pipe.tokenizer.config.name, (4, 6))


@pytest.mark.slow
def test_a_translator_says_what_it_was_trained_for(trained):
    pipe = t2i_jax.load(trained)
    ids = np.zeros((1, 2 * pipe.tokenizer.num_tokens), np.int32)
    with pytest.raises(
        UserError, match=rf"32 x 48 x 3 pictures of this run have integers \[B, {ids.shape[1] // 2}\]"
    ):
        pipe.likelihood_ratios(["picture 1"], ids)
