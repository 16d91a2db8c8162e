"""`t2i data check`: a table, a contact sheet, and errors of one line."""

import json

import numpy as np
import pytest
from folders import ODD, SKIPPED, encoded, noise, write_numbered, write_odd
from PIL import Image

from t2i_jax import cli
from t2i_jax.data.survey import survey

OPTIONS = {"image_size": 32, "background": "white", "validation_share": 0.1}


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """`code, lines on stdout, lines on stderr` of `t2i data check`, called in `tmp_path`."""

    def call(*argv):
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code = cli.main(["data", "check", *map(str, argv)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.replace("\r", "\n").splitlines()

    return call


def test_what_is_there_is_reported(tmp_path, check):
    own = tmp_path / "own"
    own.mkdir()
    files = {
        "a.png": encoded(noise(1, 40, 30)),
        "b.jpg": encoded(noise(2, 60, 80), "JPEG"),
        "c.png": encoded(noise(1, 40, 30)),
        "d.png": encoded(noise(3, 100, 100).convert("L")),
        "e.png": b"",
    }
    for name, content in files.items():
        (own / name).write_bytes(content)
    captions = {
        "a.png": ["one, two", "three"],
        "b.jpg": ["four"],
        "c.png": "three",
        "d.png": "four",
        "e.png": "five",
    }
    rows = [{"file": name, "captions": texts} for name, texts in captions.items()]
    (own / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = check("own", "--validation-share", "0", "--json")
    found = json.loads("\n".join(out))
    assert (code, found["width"], found["skipped"]) == (
        0,
        {"least": 40, "most": 100, "median": 60},
        {"in no format that is read": ["e.png"]},
    )
    code, out, _ = check("own", "--validation-share", "0")
    assert (code, out) == (
        0,
        [
            "3 pictures in own",
            "  width       40 to 100 (median 60) pixels",
            "  height      30 to 100 (median 80) pixels",
            "              2 are not square: their central square is used",
            "              2 are smaller than 64 pixels (config.data.image_size): enlarged",
            "  formats     PNG 2, JPEG 1",
            "  modes       RGB 2, L 1",
            "  captions    1 to 2 (median 1) a picture, 3 different ones",
            "  words       1 to 3 (median 1) a caption; config.data.text_len counts their",
            "              pieces, and 2 more",
            "  duplicates  1 left out, their captions kept (a.png = c.png)",
            "  splits      3 train, 0 validation; all serve for both",
            "  skipped     1 in no format that is read (e.png)",
            "contact-sheet.png",
        ],
    )
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.width > 3 * 128  # enlarged from 64


def test_write_odd_are_reported_as_preparing_treats_them(tmp_path, monkeypatch):
    own = tmp_path / "own"
    write_odd(own)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    found = survey(own, **OPTIONS)
    assert f"{len(ODD)} pictures in {own}" in found.text
    for reason, (name,) in SKIPPED.items():
        assert f"1 {reason} ({name})" in found.text
    assert "  width       32 to 64 (median 32) pixels" in found.text
    assert "  modes       RGB 4, P 2, " in found.text
    shown = dict(zip(found.captions, found.pictures[:, 0], strict=True))
    np.testing.assert_array_equal(shown["a hole"][20:], 255)
    assert shown["a picture on its side"][:10].min() > 240  # turned, as its size is


def test_a_sheet_shows_some_of_many_and_the_beginning_of_long_captions(tmp_path, monkeypatch):
    own = tmp_path / "own"
    write_numbered(own, range(60))
    for name in ("!.png", "60.png"):
        (own / name).write_bytes(encoded(noise(ord(name[0]) + 100)))
    with (own / "captions.jsonl").open("a") as rows:
        rows.write(json.dumps({"file": "!.png", "caption": "word " * 50}))
    found = survey(own, **OPTIONS)
    assert len(found.captions) == len(found.pictures) == 21  # every third of them all, in the order of their names
    assert found.captions[0] == "word " * 15 + "..."
    assert found.captions[-1] == "picture 9"
    assert "1 without a caption (60.png)" in found.text
    advice = "; so few: config.data.validation_share=0 trains on all"
    assert advice in found.text
    monkeypatch.setattr("t2i_jax.data.survey.FEW", 61)
    assert advice not in survey(own, **OPTIONS).text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["nowhere"],
            "t2i: nowhere is no folder, .tar or .parquet file; name one that holds pictures with captions",
        ),
        (["empty"], "t2i: empty has no picture with a caption: it is empty"),
        (["broken"], "t2i: broken has no picture that can be used: 1 in no format that is read (a/a.png)"),
        (["own", "--image-size", "4"], "t2i: --image-size 4 is out of range; give 8 to 1024"),
        (
            ["own", "--image-size", "48x64"],
            "t2i: argument --image-size: '48x64' is no size; give a side, or height,",
        ),
        (["own", "--image-size", "48,4"], "t2i: --image-size 4 is out of range; give 8 to 1024"),
        (
            ["own", "--background", "x"],
            "t2i: config.data.background is 'x'; it is a colour, such as white or #ffffff",
        ),
        (
            ["own", "--validation-share", "1"],
            "t2i: config.data.validation_share is 1.0; it is at least 0 and below 1",
        ),
        (["own", "--out", "own/x.png"], "t2i: --out own/x.png lies in own, where it would be taken for a picture;"),
        (["own", "--out", "x.jpg"], "t2i: --out x.jpg does not end in .png; a grid is written as PNG"),
        (["own", "more"], "t2i: 'more' is no flag; options start with --; see t2i data --help"),
    ],
)
def test_bad_input_is_one_line(tmp_path, check, argv, said):
    write_numbered(tmp_path / "own", [1])
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "a.png").write_bytes(b"")
    code, out, err = check(*argv)
    assert (code, out) == (2, [])
    assert err[-1].startswith(said)
    assert not (tmp_path / "contact-sheet.png").exists()
