"""`t2i sample --like`: the same picture from what a PNG says, and one line where it says what it must not."""

import io
import json

import numpy as np
import pytest
from fakes import FakeTranslator
from PIL import Image, PngImagePlugin

import t2i_jax
from t2i_jax import cli
from t2i_jax.pictures import NOTE as CHUNK

NOTE = {"prompt": "a red seven", "index": 1, "digest": "c0ffee", "seed": 5, "candidates": None, "rerank": None}
NOTE |= {"clip": None, "temperature": 0.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "unguided_tokens": 0}
NOTE |= {"guidance_scale": 1.5, "window": 1, "weight_bits": 32}


def png(note, mode="RGB") -> bytes:
    info, content = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text(CHUNK, json.dumps(note))
    Image.new(mode, (8, 8)).save(content, "PNG", pnginfo=info)
    return content.getvalue()


@pytest.fixture
def sample(monkeypatch, tmp_path, capsys):
    """`code, last line = sample(*arguments)`: `t2i sample` over a translator that answers at once."""
    fake = FakeTranslator()
    monkeypatch.setattr(t2i_jax, "load", lambda run: fake)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()

    def call(*argv):
        code = cli.main(["sample", "--run", "run", *map(str, argv)])
        out, err = capsys.readouterr()
        return code, (err if code else out).splitlines()[-1]

    return call


@pytest.fixture
def refused(sample, tmp_path):
    """Why a PNG of a changed note is not drawn again."""

    def call(**changes):
        note = {name: value for name, value in {**NOTE, **changes}.items() if value is not ...}
        (tmp_path / "a.png").write_bytes(png(note))
        code, line = sample("--like", "a.png")
        assert code == 2
        assert len(line) < 400
        assert line.isprintable()
        return line

    return call


@pytest.mark.parametrize("candidates", [None, 6])
def test_a_single_picture_is_drawn_again_to_the_byte(sample, tmp_path, candidates):
    ranked = ["--candidates", candidates] if candidates else []
    assert sample("--prompt", "a red seven", "-n", 3, "--seed", 5, "--top-k", 3, *ranked, "--out", "of/")[0] == 0
    for index in (0, 2):
        assert sample("--like", f"of/00000_0{index}.png", "--out", f"{index}.png") == (0, f"{index}.png")
        assert (tmp_path / f"{index}.png").read_bytes() == (tmp_path / f"of/00000_0{index}.png").read_bytes()


def test_so_is_a_grid_and_what_stands_there_is_not_overwritten(sample, tmp_path):
    prompts = ["--prompt", "a red seven", "--prompt", "a blue one"]
    assert sample(*prompts, "-n", 2, "--out", "of.png")[0] == 0
    assert sample("--like", "of.png") == (0, "grid.png")
    assert (tmp_path / "grid.png").read_bytes() == (tmp_path / "of.png").read_bytes()
    assert sample("--prompt", "a one", "-n", 2, "--out", "other.png")[0] == 0
    assert sample("--like", "other.png") == (0, "grid-2.png")


def test_a_trained_run_draws_its_pictures_again(smoke_run, tmp_path):
    run = ["sample", "--run", str(smoke_run.translator)]
    folder = tmp_path / "of"
    asked = ["--prompt", "a red one", "-n", "3", "--seed", "7", "--temperature", "0.8"]
    assert cli.main([*run, *asked, "--out", f"{folder}/"]) == 0
    again = tmp_path / "again.png"
    assert cli.main([*run, "--like", str(folder / "00000_02.png"), "--out", str(again)]) == 0
    assert again.read_bytes() == (folder / "00000_02.png").read_bytes()


class Unconditional:
    """Answers as an autoencoder does, which has no sampler."""

    digest = "c0ffee"

    def sample(self, n, seed=0):
        return np.uint8([np.full((8, 8, 3), seed + index) for index in range(n)])


def test_pictures_of_no_prompt(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(t2i_jax, "load", lambda run: Unconditional())
    assert sample("-n", 3, "--seed", 5, "--out", "of/")[0] == 0
    assert sample("--like", "of/00000_02.png") == (0, "picture.png")
    assert (tmp_path / "picture.png").read_bytes() == (tmp_path / "of/00000_02.png").read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digest": "other"}, "was drawn by weights of another run; --run run cannot draw it again"),
        ({"seed": 2**32}, "--seed 4294967296 is out of range"),
        ({"seed": "5"}, "its seed cannot be right"),
        ({"seed": True}, "its seed cannot be right"),
        ({"seed": 10**400}, "its seed cannot be right"),
        ({"seed": ...}, "it says nothing of seed"),
        ({"index": -1}, "its index cannot be right"),
        ({"index": 10**6}, "-n 1000001 is out of range"),
        ({"temperature": float("nan")}, "its temperature cannot be right"),
        ({"temperature": -1}, "temperature -1 is below 0"),
        ({"temperature": ...}, "was drawn by another temperature (1.0)"),
        ({"prompt": ["a"]}, "its prompt cannot be right"),
        ({"prompt": ""}, "its prompt cannot be right"),
        ({"prompt": " "}, "--prompt number 1 is empty"),
        ({"prompt": "a \x1b[2J seven"}, "its prompt cannot be right"),
        ({"prompt": "a" * 20_000}, "its prompt cannot be right"),
        ({"rerank": "clip", "candidates": 4, "clip": "/etc"}, "which is not loaded because a picture says so"),
        ({"rerank": "likelihood"}, "--rerank likelihood needs --candidates"),
        ({"candidates": 10**9}, "--candidates 1000000000 is out of range"),
        ({"run": "/etc"}, "it names 1 settings that are unknown here"),
    ],
)
def test_a_note_of_a_stranger_is_refused_in_one_line(refused, changes, said):
    assert said in refused(**changes)


def test_what_is_no_such_picture_is_refused_in_one_line(sample, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "cut.png").write_bytes(png(NOTE)[:-20])
    for name in ("plain.png", "cut.png"):
        assert "does not say how it was made, or is damaged" in sample("--like", name)[1]
    assert "--like run is no file" in sample("--like", "run")[1]
    assert "takes everything from its picture; leave --seed out" in sample("--like", "cut.png", "--seed", 1)[1]
    assert "name a PNG" in sample("--like", "cut.png", "--out", "of/")[1]


def test_any_note_is_drawn_or_refused(sample, tmp_path, record_fault):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    numbers = st.integers() | st.floats() | st.integers(-(10**60), 10**60)
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    values = st.recursive(st.none() | st.booleans() | numbers | text, st.lists, max_leaves=4)

    @hypothesis.given(name=st.sampled_from([*NOTE, "prompts", "n"]), value=values)
    def check(name, value):
        (tmp_path / "a.png").write_bytes(png(NOTE | {name: value}))
        record_fault("notes of strangers' PNGs", "tried")
        code, _ = sample("--like", "a.png", "--out", "b.png", "--overwrite")
        record_fault("notes of strangers' PNGs", "refused" if code else "survived")

    check()


def test_grey_pictures_too(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeTranslator, "__call__", lambda *_, **__: np.full((1, 1, 8, 8, 1), 7, np.uint8))
    (tmp_path / "a.png").write_bytes(png(NOTE, "L"))
    assert sample("--like", "a.png")[0] == 0
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.mode == "L"
