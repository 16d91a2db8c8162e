"""Texts -> byte-pair ids, as CLIP reads them."""

from pathlib import Path

from tokenizers import Tokenizer

from t2i_jax.data.text import TextTokenizer, settled
from t2i_jax.errors import UserError, one_line

START, END = "<|startoftext|>", "<|endoftext|>"


class TextReader(TextTokenizer):
    """Texts -> ids in [0, V), between a start and an end; more ends fill them up. Every word has ids: bytes."""

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
            tokenizer = settled(Tokenizer.from_str, Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"vocabulary {path} cannot be read ({one_line(error)}); fetch it again") from None
        start, end = map(tokenizer.token_to_id, (START, END))
        if None in (start, end) or tokenizer.encode("").ids != [start, end]:
            raise UserError(f"vocabulary {path} puts no {START} and {END} around a text; name that of a CLIP")
        expected = vocab_size - 1 if end_id is None else end_id
        largest = max(tokenizer.get_vocab().values())
        if end != expected or largest >= vocab_size:
            raise UserError(
                f"vocabulary {path} has ids up to {largest} and ends a text with {end}; the model reads ids up to"
                f" {vocab_size - 1}, ended by {expected}: name the vocabulary that belongs to the weights"
            )
        super().__init__(tokenizer, positions, pad=end)
