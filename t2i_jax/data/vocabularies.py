"""Vocabularies of text: WordPiece made of captions, or that of a released BERT, and their files."""

import json
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from t2i_jax import files
from t2i_jax.data import text
from t2i_jax.errors import UserError, one_line

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
FILES, SETTINGS = ("tokenizer.json", "vocab.txt"), "tokenizer_config.json"  # of a release
OF_CAPTIONS = normalizers.BertNormalizer(lowercase=True)
WORDS = pre_tokenizers.BertPreTokenizer()


def build_word_pieces(captions: Iterable[str], size: int) -> Tokenizer:
    """A BERT-style WordPiece tokenizer of captions.

    Where all their words fit, these are the pieces, and no others: of letters that no caption is read as, a model
    would learn nothing, so a word that is not among them is [UNK]. Where they do not fit, pieces are trained
    (Schuster & Nakajima 2012, by `tokenizers`' trainer), every single letter among them: no word is [UNK] that is
    made of letters and digits of English or of characters of the captions.

    The same captions, in any order, give the same ids on every machine.

    Args:
      captions: of training; gone through once.
      size: most pieces that the model's embedding holds (`config.model.text_vocab_size`).

    Raises:
      UserError: not even the single characters fit.
    """
    words = Counter(word for caption in captions for word in _words_of(caption))
    pieces = words if len(SPECIAL) + len(words) <= size else _train_pieces(words, size)
    return _word_pieces({piece: i for i, piece in enumerate((*SPECIAL, *sorted(pieces)))}, OF_CAPTIONS)


def _words_of(caption: str) -> list[str]:
    return [word for word, _ in WORDS.pre_tokenize_str(OF_CAPTIONS.normalize_str(caption))]


def _train_pieces(words: Counter[str], size: int) -> set[str]:
    signs = sorted({*"".join(words), *string.ascii_lowercase, *string.digits})
    # Not those that are words by themselves.
    inner = [f"##{sign}" for sign in signs if len(_words_of(f"a{sign}")) == 1]
    if (least := len(SPECIAL) + len(signs) + len(inner)) > size:
        raise UserError(
            f"captions hold {len(words)} words, and single characters are {least} word pieces; the model reads at"
            f" most {size}: raise config.model.text_vocab_size to {min(least, len(SPECIAL) + len(words))} or more"
        )
    # Pairs that are equally frequent go by their ids. Inner characters get theirs in the order of a hash map, but
    # for those that are named beforehand.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*SPECIAL, *inner], initial_alphabet=signs, show_progress=False
    )
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.train_from_iterator(words.elements(), trainer)
    return tokenizer.get_vocab().keys() - set(SPECIAL)


def read_vocabulary(path: str | Path, size: int) -> Tokenizer:
    """The tokenizer of a released BERT.

    Args:
      path: its `tokenizer.json`, or its `vocab.txt`, one piece a line. How captions are normalised the first says
        itself, for the second a `tokenizer_config.json` beside it; without one they are read in lower case where no
        piece has a capital letter.
      size: pieces that the model's embedding holds (`config.model.text_vocab_size`).

    Raises:
      UserError: the file cannot be read, is no such file, or holds another number of pieces.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            tokenizer = text.settled(Tokenizer.from_str, path.read_text("utf-8"))
        else:
            tokenizer = text.settled(_of_lines, path)
    except (OSError, ValueError) as error:
        raise UserError(f"vocabulary {path} cannot be read ({one_line(error)}); name BERT's vocab.txt") from None
    found = tokenizer.get_vocab_size()
    if found != size:
        raise UserError(
            f"vocabulary {path} holds {found} word pieces; the model reads {size} (config.model.text_vocab_size):"
            " name the vocabulary that belongs to the weights, or change the field"
        )
    ends = tokenizer.encode("").ids  # which the file numbers apart from its pieces
    if (largest := max([*tokenizer.get_vocab().values(), *ends], default=0)) >= size:
        raise UserError(
            f"vocabulary {path} has ids up to {largest} for its {size} word pieces, so one has no row or a piece"
            " stands twice; fetch it again"
        )
    if len(ends) != 2:
        raise UserError(f"vocabulary {path} puts no [CLS] and [SEP] around a text; name that of a BERT")
    return tokenizer


def _of_lines(path):
    lines, settings = path.read_text("utf-8").removesuffix("\n").split("\n"), path.with_name(SETTINGS)
    vocab = {piece.removesuffix("\r"): i for i, piece in enumerate(lines)}
    missing = [piece for piece in SPECIAL if piece not in vocab]
    if missing:
        raise ValueError(f"it lists no {missing[0]}")
    said = json.loads(settings.read_text("utf-8")) if settings.exists() else {}
    capitals = any(piece != piece.lower() for piece in vocab if not piece.startswith("["))
    normalizer = normalizers.BertNormalizer(
        lowercase=said.get("do_lower_case", not capitals),
        strip_accents=said.get("strip_accents"),
        handle_chinese_chars=said.get("tokenize_chinese_chars", True),
    )
    return _word_pieces(vocab, normalizer)


def _word_pieces(vocab, normalizer):
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, WORDS
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return tokenizer


def grow(old: Tokenizer, captions: Iterable[str], size: int) -> tuple[Tokenizer, int]:
    """A tokenizer with the words of captions behind the pieces of an old one, which keep their ids.

    Words of which the old one knows no whole come in order of their number, and of the alphabet, until there are
    `size` pieces. The others are read as the old one reads them: in pieces, or as its unknown word.

    Args:
      old: WordPiece; another tokenizer is not changed.
      captions: of training; gone through once.
      size: most pieces that the model's embedding holds (`config.model.text_vocab_size`).

    Returns:
      The tokenizer, and how many words found no room.

    Raises:
      UserError: the old pieces are more than `size` already.
    """
    content, count = json.loads(old.to_str()), old.get_vocab_size()
    if count > size:
        raise UserError(
            f"the text vocabulary has {count} pieces already; raise config.model.text_vocab_size {size} to {count}"
            " or more"
        )
    if content["model"]["type"] != "WordPiece":
        return old, 0
    words = Counter(word for caption in captions for word in _words_by(old, caption))
    new = sorted(words.keys() - old.get_vocab().keys(), key=lambda word: (-words[word], word))
    content["model"]["vocab"] |= {word: count + i for i, word in enumerate(new[: size - count])}
    return Tokenizer.from_str(json.dumps(content)), max(0, len(new) - (size - count))


def _words_by(tokenizer: Tokenizer, caption: str) -> list[str]:
    normalizer = tokenizer.normalizer
    words = tokenizer.pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(caption) if normalizer else caption)
    return [word for word, _ in words]


def parts_of_new(old: Tokenizer, grown: Tokenizer) -> dict[int, list[int]]:
    """The ids by which an old tokenizer reads each piece that only a grown one has, by the id it has there.

    Where that is the unknown word, all old pieces but for the special ones: nothing is known of it but that it is a
    word.
    """
    vocab = old.get_vocab()
    words, unknown = [i for piece, i in vocab.items() if piece not in SPECIAL], vocab.get(old.model.unk_token)
    found = {}
    for piece, i in grown.get_vocab().items():
        if piece not in vocab:
            ids = old.encode(piece, add_special_tokens=False).ids
            found[i] = words if unknown in ids or not ids else ids
    return found


def with_unused(content: dict, size: int) -> dict:
    """A tokenizer's JSON with as many pieces as an embedding has rows: those it lacks are [unused0], [unused1], ...

    So does BERT itself; no text holds them, as brackets are pieces of their own.
    """
    vocab = content["model"]["vocab"]
    unused = {f"[unused{i}]": len(vocab) + i for i in range(size - len(vocab))}
    return {**content, "model": {**content["model"], "vocab": vocab | unused}}


def write_word_pieces(path: str | Path, tokenizer: Tokenizer) -> None:
    """Write a tokenizer as `tokenizers` JSON, with a digest."""
    files.write_json(path, json.loads(tokenizer.to_str()))
