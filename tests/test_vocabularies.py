"""Vocabularies: words of captions, pieces of words where these are more, and those of released BERTs."""

import hashlib
import json
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from t2i_jax import files
from t2i_jax.data import scenes
from t2i_jax.data.text import CaptionReader, describe_losses, read_tokenizer
from t2i_jax.data.vocabularies import (
    SPECIAL,
    build_word_pieces,
    grow,
    parts_of_new,
    read_vocabulary,
    with_unused,
    write_word_pieces,
)
from t2i_jax.errors import UserError

REPO = Path(__file__).parents[1]
WORDS = ["a", "red", "seven", "blue", "one", "##s", "two", "green", "three"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *(f"[unused{i}]" for i in range(30))]
DIGITS = "c0f3dbf90efab230530d140341e2a410403654398bdb309b131857bf4438724e"  # sha256 of the quick start's own file
TRAINED = "3c3b6943c56991d9aa2b3516075e1d455f224afb04322524321e0d90eff8fc11"  # of the pieces of `many_captions`


def pieces_of(tokenizer):
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.get)


# --- words that fit


def test_where_all_words_fit_they_are_the_pieces_in_order():
    captions = ("a red seven", "an Orange six, small", "a red six")
    words = [",", "a", "an", "orange", "red", "seven", "six", "small"]
    for size in (12, 64):
        tokenizer = build_word_pieces(captions, size)
        assert pieces_of(tokenizer) == [*SPECIAL, *words]
    assert tokenizer.encode("a Turquoise seven").tokens == ["[CLS]", "a", "[UNK]", "seven", "[SEP]"]


def test_the_quick_starts_file_is_what_it_was(tmp_path):
    rng = np.random.default_rng(0)
    captions = [scenes.caption(scenes.draw_scene(rng)) for _ in range(3000)]  # by then each word has occurred
    write_word_pieces(tmp_path / "text_tokenizer.json", build_word_pieces(captions, 64))
    assert hashlib.sha256((tmp_path / "text_tokenizer.json").read_bytes()).hexdigest() == DIGITS


# --- words that do not


def many_captions():
    """Few letters, so that many pairs are equally frequent, and many pieces are put together in several ways."""
    rng = random.Random(0)
    words = list(dict.fromkeys("".join(rng.choices("abcé", k=rng.randint(1, 9))) for _ in range(3000)))
    ranks = [[min(int(rng.paretovariate(0.7)), len(words)) for _ in range(8)] for _ in range(2000)]
    return [" ".join(words[rank - 1] for rank in row) for row in ranks]


def test_pieces_are_trained_to_the_asked_size():
    captions = many_captions()
    for size in (76, 200, 420):
        tokenizer = build_word_pieces(captions, size)
        pieces = pieces_of(tokenizer)
        assert len(pieces) == size
        assert pieces == [*SPECIAL, *sorted(pieces[4:])]
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    assert {*letters, *(f"##{letter}" for letter in letters)} <= set(pieces)
    lengths = [len(build_word_pieces(captions, size).encode(captions[0]).ids) for size in (76, 200, 420)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 2 * lengths[2] - 2


SYLLABLES = [" ".join(f"{first}{last}" for last in "aeiou") for first in "bcdfghjklmnpqrstvwxz"]  # a hundred words


@pytest.mark.parametrize("text", ["a Turquoise kitten", "Zürich 1984", "crimson!", "it's 42 x 17"])
def test_words_that_no_caption_held_are_read_as_pieces(tmp_path, text):
    captions = ["crims kittens! it's", "turq red blue seven, green", "quoise orange", *SYLLABLES]
    write_word_pieces(tmp_path / "pieces.json", build_word_pieces(captions, 100))
    reader = CaptionReader(tmp_path / "pieces.json", 40)
    assert "none of the pieces are unknown" in describe_losses(reader, [text])
    again = [piece.removeprefix("##") for piece in build_word_pieces(captions, 100).encode(text).tokens[1:-1]]
    assert "".join(again) == text.lower().replace("ü", "u").replace(" ", "")


def test_signs_of_the_captions_have_pieces_and_those_that_stand_alone_only_one():
    captions = ["猫 cat ❤ i❤cats", "dog cow 🐈", *SYLLABLES]
    pieces = set(build_word_pieces(captions, 90).get_vocab())
    assert {"猫", "❤", "##❤", "🐈", "##🐈"} <= pieces
    assert "##猫" not in pieces
    assert "[UNK]" not in build_word_pieces(captions, 90).encode("a🐈 ❤❤猫猫").tokens


def test_a_size_below_the_characters_is_one_line():
    least = 4 + 36 + 36 + 1  # the comma stands alone
    for captions, count, enough in ((["red seven, blue"], 4, 8), ([*SYLLABLES, ","], 101, least)):
        assert build_word_pieces(captions, enough).get_vocab_size() == enough
        with pytest.raises(UserError) as caught:
            build_word_pieces(captions, enough - 1)
        assert str(caught.value) == (
            f"captions hold {count} words, and single characters are {least} word pieces; the model reads at most"
            f" {enough - 1}: raise config.model.text_vocab_size to {enough} or more"
        )


SCRIPT = """
import sys
from t2i_jax.data.vocabularies import build_word_pieces
print(build_word_pieces(sys.stdin, 420).to_str())
"""


def test_pieces_are_the_same_in_any_order_with_any_number_of_threads():
    """In processes of their own, whose hash maps have other seeds each."""
    made, captions = set(), many_captions()
    for seed, (threads, parallel) in enumerate([("1", "false"), ("2", "true"), ("2", "false")]):
        random.Random(seed).shuffle(captions)
        own = {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": parallel}
        options = {"input": "\n".join(captions), "env": os.environ | own, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=REPO, **options)
        assert done.returncode == 0, done.stderr
        made.add(hashlib.sha256(done.stdout.removesuffix("\n").encode()).hexdigest())
    assert made == {TRAINED}


# --- grown by other captions


def test_new_words_go_behind_the_old_pieces_which_keep_their_ids():
    old = build_word_pieces(["a red seven", "two sevens"], 64)
    grown, left = grow(old, ["a scarlet seven", "scarlet and mauve", "Two, red"], 64)
    assert left == 0
    vocab = grown.get_vocab()
    assert {piece: vocab[piece] for piece in old.get_vocab()} == old.get_vocab()
    new = sorted(vocab.keys() - old.get_vocab().keys(), key=vocab.get)
    assert new == ["scarlet", ",", "and", "mauve"]  # the most frequent first, then by the alphabet
    assert [vocab[word] for word in new] == [*range(9, 13)]
    assert grown.encode("A Scarlet Seven").tokens == ["[CLS]", "a", "scarlet", "seven", "[SEP]"]
    # Nothing is known of a new word in a list of whole words, but that it is one.
    parts = parts_of_new(old, grown)
    assert sorted(parts) == [*range(9, 13)]
    assert all(sorted(ids) == [*range(4, 9)] for ids in parts.values())


def test_new_words_are_made_of_the_pieces_that_they_were_read_as(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "car", "##let", "s", "##car"]))
    old = read_vocabulary(path, 9)
    grown, left = grow(old, ["a scarlet car", "a carlet carlet \u65e5"], 11)
    assert left == 1
    assert grown.encode("a scarlet carlet").ids == [2, 4, 10, 9, 3]
    assert parts_of_new(old, grown) == {9: [5, 6], 10: [7, 8, 6]}
    with pytest.raises(UserError, match=r"has 9 pieces already; raise config.model.text_vocab_size 8 to 9"):
        grow(old, [], 8)
    assert grow(old, ["a car"], 9)[0].to_str() == old.to_str()


# --- of released BERTs


def test_vocabularies_in_both_forms_read_alike(tmp_path):
    lines, whole = tmp_path / "vocab.txt", tmp_path / "tokenizer.json"
    lines.write_text("\r\n".join(PIECES) + "\r\n")
    tokenizer = read_vocabulary(lines, len(PIECES))
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(4)
    whole.write_text(tokenizer.to_str())
    for path in (lines, whole):
        read = read_vocabulary(path, len(PIECES))
        assert read.encode("A red sevens ones").tokens == [
            "[CLS]",
            "a",
            "red",
            "seven",
            "##s",
            "one",
            "##s",
            "[SEP]",
        ]
    lines.write_text("\n".join([*PIECES[:-1], "Red"]))
    cased = read_vocabulary(lines, len(PIECES))
    assert cased.encode("Red red A").tokens == ["[CLS]", "Red", "red", "[UNK]", "[SEP]"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vocab.txt", "\n".join(PIECES[:-2]), "holds 41 word pieces; the model reads 43"),
        ("vocab.txt", "\n".join(WORDS), "it lists no [PAD]"),
        ("vocab.txt", b"\xff\xfe\xfd", "cannot be read"),
        ("tokenizer.json", "{", "cannot be read"),
        ("tokenizer.json", json.dumps({"model": {}}), "cannot be read"),
    ],
)
def test_vocabularies_that_do_not_fit(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_vocabulary(tmp_path / name, len(PIECES))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_marks_is_refused(tmp_path):
    tokenizer = build_word_pieces(["a red seven"], 9)
    content = json.loads(tokenizer.to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}))
    with pytest.raises(UserError, match=r"puts no \[CLS\] and \[SEP\]"):
        read_vocabulary(tmp_path / "tokenizer.json", tokenizer.get_vocab_size())
    wider = with_unused(content, 12)
    (tmp_path / "tokenizer.json").write_text(json.dumps(wider))
    read = read_vocabulary(tmp_path / "tokenizer.json", 12)
    assert read.encode("a [unused0] seven").ids == tokenizer.encode("a [unused0] seven").ids


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (None, ["a", "red", "seven"]),  # no piece has a capital letter
        ({"do_lower_case": True, "strip_accents": None}, ["a", "red", "seven"]),
        ({"do_lower_case": False}, ["a", "[UNK]", "[UNK]"]),
        ({"do_lower_case": True, "strip_accents": False}, ["a", "red", "[UNK]"]),
    ],
)
def test_how_a_plain_vocabulary_is_read_stands_beside_it(tmp_path, said, tokens):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES))
    if said is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    tokenizer = read_vocabulary(tmp_path / "vocab.txt", len(PIECES))
    assert tokenizer.encode("a RED séven").tokens[1:-1] == tokens


@pytest.mark.parametrize("content", ["{", "[1]", '{"do_lower_case": "yes"}', "\xff"])
def test_a_damaged_one_is_one_line(tmp_path, content):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES))
    (tmp_path / "tokenizer_config.json").write_text(content, "latin-1")
    with pytest.raises(UserError, match=r"^vocabulary [^\n]*vocab\.txt cannot be read [^\n]*$"):
        read_vocabulary(tmp_path / "vocab.txt", len(PIECES))


def test_ids_without_a_row_are_refused(tmp_path):
    """A piece that stands twice leaves a gap: the last ids lie behind the embedding, and jax reads its last row."""
    (tmp_path / "vocab.txt").write_text("\n".join([*PIECES[:-1], PIECES[5], PIECES[-1]]))
    with pytest.raises(UserError, match=rf"has ids up to {len(PIECES)} for its {len(PIECES)} word pieces"):
        read_vocabulary(tmp_path / "vocab.txt", len(PIECES))


def test_ends_of_a_text_without_a_row_are_refused(tmp_path):
    content = json.loads(build_word_pieces(["a red seven"], 9).to_str())
    content["post_processor"] |= {"sep": ["[SEP]", 7], "cls": ["[CLS]", 7]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has ids up to 7 for its 7 word pieces"):
        read_vocabulary(tmp_path / "tokenizer.json", 7)


def test_a_tokenizer_that_cannot_read_every_word_is_refused(tmp_path):
    content = json.loads(build_word_pieces(["a red seven"], 9).to_str())
    content["model"]["unk_token"] = "[NONE]"
    for name, read in (
        ("tokenizer.json", partial(read_vocabulary, size=7)),
        ("text_tokenizer.json", read_tokenizer),
    ):
        files.write_json(tmp_path / name, content)
        with pytest.raises(UserError, match=r"json cannot be read[^\n]*$"):
            read(tmp_path / name)


def test_a_tokenizer_whose_rust_panics_is_refused(tmp_path):
    """Found by fuzzing: a prefix that is longer than the piece it stands before; the panic is no Exception."""
    model = {
        "type": "BPE",
        "continuing_subword_prefix": "longer",
        "vocab": {"a": 0, "b": 1},
        "merges": [["a", "b"]],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    with pytest.raises(UserError, match=r"json cannot be read \([^\n]*\); name BERT's vocab.txt$"):
        read_vocabulary(tmp_path / "tokenizer.json", 2)


def test_padding_in_a_runs_tokenizer_is_passed_over(tmp_path):
    tokenizer = build_word_pieces(["a red seven"], 9)
    tokenizer.enable_padding(length=2**20)
    write_word_pieces(tmp_path / "text_tokenizer.json", tokenizer)
    assert len(read_tokenizer(tmp_path / "text_tokenizer.json").encode("a seven").ids) == 4
