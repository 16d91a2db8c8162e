"""The functions of the page of `t2i serve`, over a translator that answers at once."""

import base64
import io
import re

import numpy as np
import pytest
from fakes import FakeTokenizer, FakeTranslator
from PIL import Image

from t2i_jax import cli
from t2i_jax.errors import UserError
from t2i_jax.page.answers import MAX_UPLOAD, Answers
from t2i_jax.page.figures import heat, over, over_picture
from t2i_jax.pictures import read_note

VALUES = [None] * 8


@pytest.fixture
def answers():
    return Answers({"a": FakeTranslator(), "b": FakeTranslator(digest="b")}, max_images=8, time_limit=60.0)


def pictures(shown: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'<img src="data:image/png;base64,([^"]*)"', shown)]


def upload(picture: Image.Image | bytes) -> str:
    if not isinstance(picture, bytes):
        content = io.BytesIO()
        picture.save(content, "PNG")
        picture = content.getvalue()
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def test_pictures_appear_as_they_are_drawn_and_say_how(answers, tmp_path, monkeypatch):
    steps = list(answers.draw("a", "a red seven", 3, 2, 0.25, *VALUES[1:]))
    assert [re.search('value="([^"]*)"', status)[1] for status, _ in steps[:3]] == ["0.000", "0.125", "0.250"]
    assert [len(pictures(shown)) for _, shown in steps] == [0, *[2] * 8]
    assert "download" not in steps[-2][1]
    assert answers.runs["a"].calls == [(["a red seven"], 2, 3, {"temperature": 0.25})]
    monkeypatch.setattr("t2i_jax.load", lambda run: answers.runs["a"])
    run = ["sample", "--run", str(tmp_path), "--prompt", "a red seven", "-n", "2", "--seed", "3"]
    assert cli.main([*run, "--temperature", "0.25", "--out", f"{tmp_path}/of/"]) == 0
    for index, content in enumerate(pictures(steps[-1][1])):
        assert content == (tmp_path / "of" / f"00000_{index:02d}.png").read_bytes()
        saved = re.findall(r'href="data:image/png;base64,([^"]*)" download="picture-3-\d.png"', steps[-1][1])
        assert base64.b64decode(saved[index]) == content
    assert read_note(tmp_path / "of" / "00000_01.png")["temperature"] == 0.25


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "  "}, "there is no prompt"),
        ({"prompt": None}, "there is no prompt"),
        ({"prompt": "a " * 300}, "the prompt has 600 characters; shorten it to 500"),
        ({"prompt": "a\nred\x1b[2J"}, "signs that are not printed"),
        ({"seed": -1}, "seed -1 is below 0"),
        ({"seed": 2**32}, "seed 4294967296 is above 4294967295"),
        ({"seed": 1.5}, "seed 1.5 is no whole number"),
        ({"seed": None}, "seed None is no number"),
        ({"number": 9}, "number of pictures 9 is above 8"),
        ({"number": 0}, "number of pictures 0 is below 1"),
        ({"temperature": "hot"}, "temperature 'hot' is no number"),
        ({"temperature": float("nan")}, "temperature nan is not finite"),
        ({"temperature": -1}, "temperature -1 is below 0"),
    ],
)
def test_what_cannot_be_drawn(answers, changes, said):
    asked = {"prompt": "a red seven", "seed": 0, "number": 2, "temperature": None} | changes
    with pytest.raises(UserError, match=re.escape(said)):
        list(answers.draw("a", *asked.values(), *VALUES[1:]))
    said = said.replace("number of pictures", "picture")
    with pytest.raises(UserError, match=re.escape(said)):
        list(answers.inside("a", *asked.values(), *VALUES[1:]))
    assert answers.runs["a"].calls == []


def test_unknown_words_are_named_and_nothing_of_a_prompt_is_html(answers):
    for status, shown in answers.draw("a", 'a <b>fox</b> {{seven}} ${1} "', 0, 1, *VALUES):
        assert "cannot follow them: &lt;b&gt;fox&lt;/b&gt;</p>" in status
        assert not re.search(r"<b>|\{|\$", status + shown)


def test_a_request_ends_in_time(answers, monkeypatch):
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    steps = answers.draw("a", "a red seven", 0, 1, *VALUES)
    with pytest.raises(UserError, match="drawing took longer than 60 s"):
        list(steps)


def test_two_sides(answers):
    *_, (status, left, right) = answers.compare("a red seven", 1, 2, "a", *VALUES, "b", 0.0, *VALUES[1:])
    assert "right" in status
    assert len(pictures(left)) == len(pictures(right)) == 2
    assert [answers.runs[run].calls[0][3] for run in "ab"] == [{}, {"temperature": 0.0}]


def test_what_the_model_knew(answers):
    (shown,) = answers.inside("a", "a red seven", 0, 2, *VALUES)
    assert len(pictures(shown)) == 2 + 3
    drawn = FakeTranslator()(["a red seven"], 2)[0, 1]
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(pictures(shown)[0]))), drawn)
    assert "0.00 to 3.00 nats" in shown
    assert "seven: 33% of the attention" in shown


def test_values_over_cells():
    cells = [(0, 0, 2, 2), (0, 0, 2, 2), (2, 0, 4, 4)]
    values = over_picture(np.float32([1, 3, 4]), cells, (4, 4))
    np.testing.assert_array_equal(values, [[2, 2, 0, 0], [2, 2, 0, 0], [4, 4, 4, 4], [4, 4, 4, 4]])
    colours = heat(values, 4.0)
    assert colours[3, 3].sum() > colours[0, 0].sum() > colours[0, 3].sum()
    seen = over(np.full((4, 4, 1), 100, np.uint8), colours)
    np.testing.assert_array_equal(seen, np.uint8(40 + 0.6 * colours))


@pytest.mark.parametrize("channels", [3, 1])
def test_a_picture_goes_through_the_tokenizer(answers, channels):
    answers.runs["a"].tokenizer = FakeTokenizer(channels=channels)
    (shown,) = answers.reconstruct("a", upload(Image.new("RGB", (100, 50), (200, 200, 200))))
    before, after = (np.array(Image.open(io.BytesIO(content))) for content in pictures(shown))
    assert before.shape == after.shape == ((32, 32, 3) if channels == 3 else (32, 32))
    assert "1 tokens, 256 codes" in shown


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("", "no picture is chosen"),
        ("/etc/passwd", "did not arrive as the page sends it"),
        ("data:image/png;base64,@@@@", "did not arrive whole"),
        (upload(b"\x89PNG\r\n\x1a\nrubbish"), "the picture is "),
        (upload(b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run"), "the picture is in no format that is read"),
        (upload(Image.new("RGB", (4, 4))), "below 8 pixels a side"),
        (upload(bytes(MAX_UPLOAD + 3)), "above 8 MiB"),
    ],
)
def test_a_hostile_upload_is_one_line(answers, sent, said):
    with pytest.raises(UserError, match=re.escape(said)):
        list(answers.reconstruct("a", sent))
