"""Captions -> ids: the word pieces, padding, and what is said about prompts that do not fit."""

import json

import numpy as np
import pytest

from t2i_jax import files
from t2i_jax.data.text import CaptionReader, describe_losses, share
from t2i_jax.data.vocabularies import SPECIAL, build_word_pieces, write_word_pieces
from t2i_jax.errors import UserError

CAPTIONS = ("a red seven", "a blue three left of a red seven", "three yellow sevens", "an Orange six, small")
WORDS = [
    ",",
    "a",
    "an",
    "blue",
    "left",
    "of",
    "orange",
    "red",
    "seven",
    "sevens",
    "six",
    "small",
    "three",
    "yellow",
]


@pytest.fixture
def reader(tmp_path):
    write_word_pieces(tmp_path / "text_tokenizer.json", build_word_pieces(CAPTIONS, 64))
    return CaptionReader(tmp_path / "text_tokenizer.json", text_len=8)


def ids_of(*pieces):
    return [[*SPECIAL, *WORDS].index(piece) for piece in pieces]


def test_encode(reader):
    ids, mask, unknown = reader.encode(["a red seven"])
    assert (ids.dtype, mask.dtype) == (np.int32, bool)
    assert unknown == []
    ids, mask = ids[0], mask[0]
    assert ids.tolist() == [*ids_of("[CLS]", "a", "red", "seven", "[SEP]"), 0, 0, 0]
    assert mask.tolist() == [True] * 5 + [False] * 3


def test_encode_reads_capitals_and_spaces_as_training_did(reader):
    np.testing.assert_array_equal(
        reader.encode(["  A  ORANGE six,small "])[0], reader.encode(["a orange six , small"])[0]
    )
    assert reader.encode(["a orange six,small"])[0][0].tolist()[:7] == ids_of(
        "[CLS]", "a", "orange", "six", ",", "small", "[SEP]"
    )


def test_a_longer_caption_loses_its_end(reader):
    for caption, pieces in (
        ("a blue three left of a", "a blue three left of a"),  # just fits: 6 and the two special ones
        ("a blue three left of a red seven", "a blue three left of a"),
    ):
        ids, mask, _ = reader.encode([caption])
        assert ids[0].tolist() == ids_of("[CLS]", *pieces.split(), "[SEP]")
        assert mask.all()


def test_prompts(reader):
    prompts = ["a red seven", "an orange six"]
    ids, mask, unknown = reader.encode_prompts(prompts)
    assert ids.shape == mask.shape == (2, 8)
    assert unknown == []
    for given in (iter(prompts), np.array(prompts)):
        for again, expected in zip(reader.encode_prompts(given), (ids, mask, unknown), strict=True):
            np.testing.assert_array_equal(again, expected)
    for row, prompt in enumerate(prompts):
        np.testing.assert_array_equal(ids[row], reader.encode([prompt])[0][0])
        np.testing.assert_array_equal(mask[row], reader.encode([prompt])[1][0])


def test_no_text_at_all(reader):
    ids, mask, unknown = reader.encode([])
    assert (ids.shape, mask.shape, unknown) == ((0, 8), (0, 8), [])


def test_another_sign_for_unknown_words(tmp_path):
    """Of a vocabulary that was made elsewhere."""
    content = json.loads(build_word_pieces(["a red seven <unk>"], 64).to_str())
    content["model"]["unk_token"] = "red"
    files.write_json(tmp_path / "text_tokenizer.json", content)
    reader = CaptionReader(tmp_path / "text_tokenizer.json", text_len=8)
    assert reader.encode_prompts(["a blue seven"])[2] == ["blue"]


def test_words_that_training_never_showed(reader):
    ids, mask, unknown = reader.encode_prompts(["a Turquoise seven", "a red seven", "a élan of redd"])
    assert unknown == ["Turquoise", "élan", "redd"]
    assert ids[0].tolist()[:5] == ids_of("[CLS]", "a", "[UNK]", "seven", "[SEP]")
    assert mask[0].sum() == 5


def test_what_is_lost_of_captions_is_said(reader):
    assert describe_losses(reader, CAPTIONS[:1] * 3) == (
        "3 captions: none are cut to 8 word pieces (config.data.text_len), none of the pieces are unknown"
    )
    captions = ["a blue three left of a red seven", "a turquoise seven", "a turquoise or mauve six"]
    assert describe_losses(reader, iter(captions)) == (  # the first loses "seven": 6 + 3 + 5 pieces are read
        "3 captions: 33.3% are cut to 8 word pieces (config.data.text_len), 28.6% of the pieces are unknown"
        " (turquoise, or, mauve)"
    )


def test_shares_are_none_and_all_only_where_they_are():
    assert [share(*pair) for pair in ((0, 9), (1, 9999), (1, 3), (9998, 9999), (9, 9), (0, 0))] == [
        "none",
        "0.1%",
        "33.3%",
        "99.9%",
        "all",
        "none",
    ]


@pytest.mark.parametrize("empty", ["", "  ", "\t\n"])
def test_an_empty_prompt(reader, empty):
    with pytest.raises(UserError) as error:
        reader.encode_prompts(["a red seven", empty])
    assert str(error.value) == "prompt 1 is empty; give at least one word"


def test_a_prompt_that_is_too_long(reader):
    assert reader.encode_prompts(["a blue three left of a"])[1].all()
    with pytest.raises(UserError) as error:
        reader.encode_prompts(["a red seven", "a red seven", "a blue three left of a seven"])
    assert str(error.value) == (
        "prompt 'a blue three left of a seven' has 7 word pieces; this run reads at most 6"
        " (config.data.text_len less 2); shorten it"
    )


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"\xff\xfe", b'{"version": "1.0", "model": null}'])
def test_a_broken_file(tmp_path, content):
    path = tmp_path / "text_tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    what = "missing" if content is None else "corrupt"
    with pytest.raises(UserError, match=rf"^text tokenizer .*text_tokenizer\.json is {what}.*; delete it") as error:
        CaptionReader(path, text_len=8)
    assert "\n" not in str(error.value)


def test_a_whole_file_that_is_no_tokenizer(tmp_path):
    path = tmp_path / "text_tokenizer.json"
    files.write_json(path, {"version": "1.0", "model": None})
    with pytest.raises(UserError, match=r"^text tokenizer .*text_tokenizer\.json cannot be read: ") as error:
        CaptionReader(path, text_len=8)
    assert "\n" not in str(error.value)


def test_captions_of_which_no_word_is_known_are_refused(reader):
    strange = ["xylophon quartz", "quartz"]
    refused = r"^of 2 captions the text tokenizer knows no word \(xylophon, quartz\): .* another language or script"
    with pytest.raises(UserError, match=refused):
        describe_losses(reader, strange)
    assert "of the pieces are unknown (quartz, xylophon)" in describe_losses(reader, [*strange, CAPTIONS[0]])
