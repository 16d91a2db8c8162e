"""Texts -> byte-pair ids, as CLIP reads them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Tokenizer

from t2i_jax.data.text import TextTokenizer
from t2i_jax.errors import UserError, one_line

START, END = "<|startoftext|>", "<|endoftext|>"


class TextReader(TextTokenizer):
    """Texts -> ids of one length, between a start and an end."""

    def __init__(self, path: str | Path, vocab_size: int, positions: int, end_id: int | None):
        """Read a released `tokenizer.json`.

        Args:
          path: of the file.
          vocab_size: V, rows of the model's token table.
          positions: S, ids a text, start and end included.
          end_id: the id by which the model finds the end of a text; None: the largest.

        Raises:
          UserError: the file cannot be read, is no such file, or belongs to another model.
        """
        try:
            tokenizer = Tokenizer.from_str(Path(path).read_text("utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"vocabulary {path} cannot be read ({one_line(error)}); fetch it again") from None
        start, end = map(tokenizer.token_to_id, (START, END))
        tokenizer.no_padding()
        if None in (start, end) or tokenizer.encode("").ids != [start, end]:
            raise UserError(f"vocabulary {path} puts no {START} and {END} around a text; name that of a CLIP")
        expected = vocab_size - 1 if end_id is None else end_id
        largest = max(tokenizer.get_vocab().values())
        if end != expected or largest >= vocab_size:
            raise UserError(
                f"vocabulary {path} has ids up to {largest} and ends a text with {end}; the model reads ids up to"
                f" {vocab_size - 1}, ended by {expected}: name the vocabulary that belongs to the weights"
            )
        tokenizer.no_truncation()
        self._tokenizer, self._end, self.text_len = tokenizer, end, positions

    def encode(self, texts: Sequence[str]) -> tuple[Int[np.ndarray, "B S"], Bool[np.ndarray, "B S"], list[str]]:
        """See `TextTokenizer.encode`; ids int32 in [0, V), behind a text ends alone. Every word has ids: bytes."""
        ids = np.full((len(texts), self.text_len), self._end, np.int32)
        pieces = [text.ids for text in self._tokenizer.encode_batch(list(texts))]
        for row, kept in zip(ids, pieces, strict=True):
            row[: min(len(kept), self.text_len - 1)] = kept[: self.text_len - 1]  # behind it stands an end already
        lengths = np.array([min(len(kept), self.text_len) for kept in pieces], np.int32)
        return ids, np.arange(self.text_len) < lengths[:, None], []

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """See `TextTokenizer.lengths`."""
        return [len(pieces.ids) for pieces in self._tokenizer.encode_batch(list(texts))]
