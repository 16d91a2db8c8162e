"""Captions -> WordPiece ids, with the tokenizer that lies in a run folder."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from t2i_jax import files
from t2i_jax.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def build_word_pieces(captions: Iterable[str], max_size: int) -> Tokenizer:
    """A BERT-style WordPiece tokenizer whose pieces are the whole words of small, closed captions.

    The vocabulary is sorted, so that the same captions give the same ids on every machine.

    Args:
      captions: training captions.
      max_size: most pieces that the model's embedding holds (`config.model.text_vocab_size`).

    Raises:
      UserError: the captions hold more words than that.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = sorted(
        {word for caption in captions for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption))}
    )
    vocab = {piece: i for i, piece in enumerate((*SPECIAL, *words))}
    if len(vocab) > max_size:
        raise UserError(
            f"captions hold {len(vocab)} word pieces; the model reads at most {max_size}"
            " (config.model.text_vocab_size)"
        )
    return _word_pieces(vocab, normalizer)


def read_vocabulary(path: str | Path, size: int) -> Tokenizer:
    """The tokenizer of a released BERT.

    Args:
      path: its `tokenizer.json`, or its `vocab.txt`, one piece a line; with no piece in it that has a capital
        letter, captions are read in lower case.
      size: pieces that the model's embedding holds (`config.model.text_vocab_size`).

    Raises:
      UserError: the file cannot be read, is no such file, or holds another number of pieces.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
        else:
            tokenizer = _of_lines(path.read_text("utf-8").removesuffix("\n").split("\n"))
    except Exception as error:  # the library raises bare Exception
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"vocabulary {path} cannot be read ({reason}); name BERT's vocab.txt") from None
    found = tokenizer.get_vocab_size()
    if found != size:
        raise UserError(
            f"vocabulary {path} holds {found} word pieces; the model reads {size} (config.model.text_vocab_size):"
            " name the vocabulary that belongs to the weights, or change the field"
        )
    if len(tokenizer.encode("").ids) != 2:
        raise UserError(f"vocabulary {path} puts no [CLS] and [SEP] around a text; name that of a BERT")
    return tokenizer


def with_unused(content: dict, size: int) -> dict:
    """A tokenizer's JSON with as many pieces as an embedding has rows: those it lacks are [unused0], [unused1], ...

    So does BERT itself; no text holds them, as brackets are pieces of their own.
    """
    vocab = content["model"]["vocab"]
    unused = {f"[unused{i}]": len(vocab) + i for i in range(size - len(vocab))}
    return {**content, "model": {**content["model"], "vocab": vocab | unused}}


def _of_lines(lines):
    vocab = {piece.removesuffix("\r"): i for i, piece in enumerate(lines)}
    missing = [piece for piece in SPECIAL if piece not in vocab]
    if missing:
        raise ValueError(f"it lists no {missing[0]}")
    lowercase = not any(piece != piece.lower() for piece in vocab if not piece.startswith("["))
    return _word_pieces(vocab, normalizers.BertNormalizer(lowercase=lowercase))


def _word_pieces(vocab, normalizer):
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return tokenizer


def write_word_pieces(path: str | Path, tokenizer: Tokenizer) -> None:
    """Write a tokenizer as `tokenizers` JSON, with a digest."""
    files.write_json(path, json.loads(tokenizer.to_str()))


class CaptionReader:
    """Captions -> fixed-length ids.

    Attributes:
      text_len: S, ids a caption, [CLS] and [SEP] included.
    """

    def __init__(self, path: str | Path, text_len: int):
        """Read what `write_word_pieces` wrote.

        Raises:
          UserError: the file is missing, damaged, or no such file.
        """
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(files.read_json(path)))
        except files.DamagedError as error:
            raise UserError(
                f"text tokenizer {error}; delete it, and the run's train.py command writes it anew"
            ) from None
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"text tokenizer {path} cannot be read: {error}") from None
        self.text_len = text_len

    def encode(self, caption: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 [S] and mask bool [S] (True where a piece stands). Longer captions lose their end."""
        ids = self._tokenizer.encode(caption).ids
        if len(ids) > self.text_len:
            ids = [*ids[: self.text_len - 1], ids[-1]]
        padded = np.zeros(self.text_len, np.int32)
        padded[: len(ids)] = ids
        return padded, np.arange(self.text_len) < len(ids)

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Ids int32 [P, S], mask bool [P, S], and the words that training never showed.

        Raises:
          UserError: no prompt at all, an empty prompt, or one longer than `text_len`.
        """
        if not prompts:
            raise UserError("there is no prompt; give at least one")
        unknown, rows = [], []
        for number, prompt in enumerate(prompts):
            try:
                pieces = self._tokenizer.encode(prompt)
            except TypeError:  # no string, or one with bytes that are no UTF-8
                raise UserError(f"prompt {number} ({prompt!r}) is no text; give words in UTF-8") from None
            if len(pieces.ids) == 2:  # [CLS] and [SEP] alone
                raise UserError(f"prompt {number} is empty; give at least one word")
            if len(pieces.ids) > self.text_len:
                raise UserError(
                    f"prompt {number} has {len(pieces.ids) - 2} word pieces;"
                    f" this run reads at most {self.text_len - 2} (config.data.text_len less 2)"
                )
            unknown += [
                prompt[slice(*span)]
                for piece, span in zip(pieces.tokens, pieces.offsets, strict=True)
                if piece == "[UNK]"
            ]
            rows.append(self.encode(prompt))
        ids, mask = zip(*rows, strict=True)
        return np.stack(ids), np.stack(mask), unknown
