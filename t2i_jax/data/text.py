"""Texts -> ids: what every text tokenizer answers, whatever its vocabulary; and the tokenizer of a run folder."""

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Tokenizer

from t2i_jax import files
from t2i_jax.errors import UserError, one_line

LOOKED_AT = 10_000  # captions: half a second


class TextTokenizer:
    """What a text tokenizer answers, whatever its vocabulary was made of.

    Attributes:
      text_len: S, ids a text, those that the tokenizer adds at both ends included.
    """

    def __init__(self, tokenizer: Tokenizer, text_len: int, *, pad: int = 0, unknown: str | None = None):
        """
        Args:
          tokenizer: of texts, without padding and truncation.
          text_len: S.
          pad: the id behind the end of a text.
          unknown: the piece that stands for words without an id of their own; None where there are none.
        """
        self._tokenizer, self.text_len, self._pad, self._unknown = tokenizer, text_len, pad, unknown

    def __repr__(self) -> str:
        longest, pieces = self.text_len - self.lengths([""])[0], self._tokenizer.get_vocab()
        known = sum(not (piece.startswith("[") and piece.endswith("]")) for piece in pieces)
        return f"up to {longest} {'words' if self.is_closed else 'word pieces'}, of {known:,} known"

    @property
    def is_closed(self) -> bool:
        """Whether whole words are known alone: no word is made of pieces, "##" and what follows another."""
        return self._unknown is not None and not any(
            piece.startswith("##") for piece in self._tokenizer.get_vocab()
        )

    def encode(self, texts: Sequence[str]) -> tuple[Int[np.ndarray, "B S"], Bool[np.ndarray, "B S"], list[str]]:
        """int32 ids, a mask (True where an id of the text stands), and the words that have no id of their own.

        Longer texts lose their end, but for the id that the tokenizer adds there.
        """
        ids = np.full((len(texts), self.text_len), self._pad, np.int32)
        mask, unknown = np.zeros(ids.shape, bool), []
        for row, text in enumerate(texts):
            pieces = self._tokenizer.encode(text)
            kept = pieces.ids
            if len(kept) > self.text_len:
                kept = [*kept[: self.text_len - 1], kept[-1]]
            ids[row, : len(kept)], mask[row, : len(kept)] = kept, True
            unknown += [
                text[slice(*span)]
                for piece, span in zip(pieces.tokens, pieces.offsets, strict=True)
                if piece == self._unknown
            ]
        return ids, mask, unknown

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Ids of each text before anything of it is lost.

        Raises:
          TypeError: a text is no string, or holds what is no UTF-8.
        """
        return [len(self._tokenizer.encode(text).ids) for text in texts]

    def words(self, text: str) -> list[tuple[str, list[int]]]:
        """Words of a text as it writes them, and the places of their pieces among its ids; signs are words, too."""
        pieces, spans = self._tokenizer.encode(text), {}
        for place, (word, span) in enumerate(zip(pieces.word_ids, pieces.offsets, strict=True)):
            if word is not None:  # not one that the tokenizer adds
                spans.setdefault(word, []).append((place, *span))
        return [
            (text[found[0][1] : found[-1][2]].strip(), [place for place, *_ in found]) for found in spans.values()
        ]

    def encode_prompts(self, prompts: Iterable[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """`encode` of prompts, of which nothing may be lost.

        Raises:
          UserError: no prompt at all, an empty prompt, or one longer than `text_len`.
        """
        prompts = list(prompts)
        if not prompts:
            raise UserError("there is no prompt; give at least one")
        added = self.lengths([""])[0]
        for number, prompt in enumerate(prompts):
            try:
                length = self.lengths([prompt])[0]
            except TypeError:
                raise UserError(f"prompt {number} ({prompt!r}) is no text; give words in UTF-8") from None
            if length == added:
                raise UserError(f"prompt {number} is empty; give at least one word")
            if length > self.text_len:
                raise UserError(
                    f"prompt {textwrap.shorten(prompt, 60, placeholder='...')!r} has {length - added} word pieces;"
                    f" this run reads at most {self.text_len - added} (config.data.text_len less {added});"
                    " shorten it"
                )
        return self.encode(prompts)


def describe_losses(tokenizer: TextTokenizer, captions: Iterable[str]) -> str:
    """What a tokenizer loses of captions, in one line. The first LOOKED_AT are looked at.

    Raises:
      UserError: it knows not a single word of them.
    """
    captions = list(islice(captions, LOOKED_AT))
    cut = sum(length > tokenizer.text_len for length in tokenizer.lengths(captions))
    _, mask, words = tokenizer.encode(captions)
    unknown, pieces = Counter(words), int(mask.sum()) - len(captions) * tokenizer.lengths([""])[0]
    if words and len(words) == pieces:
        raise UserError(
            f"of {len(captions):,} captions the text tokenizer knows no word ({', '.join(list(unknown)[:5])}): its"
            " vocabulary is of another language or script; train another --workdir, whose words are those of these"
            " captions where no config.encoder_weights or config.init_from brings its own"
        )
    first = "the first " if len(captions) == LOOKED_AT else ""
    said = (
        f"{first}{len(captions):,} captions: {share(cut, len(captions))} are cut to {tokenizer.text_len} word"
        f" pieces (config.data.text_len), {share(len(words), pieces)} of the pieces are unknown"
    )
    return f"{said} ({', '.join(word for word, _ in unknown.most_common(5))})" if unknown else said


def share(part: int, whole: int) -> str:
    """A share in percent, "none" and "all" only where that is so."""
    if part in (0, whole):
        return "all" if part else "none"
    return f"{min(max(part / whole, 0.001), 0.999):.1%}"


def settled(make: Callable[..., Tokenizer], source: str | Path) -> Tokenizer:
    """`make(source)`, without padding and truncation; `source` is a JSON or the path of a file, as `make` reads it.

    Raises:
      ValueError: it cannot be made, or cannot read every text.
    """
    try:
        tokenizer = make(source)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        for text in ("", "a seven", "\ue000 9"):  # signs that no vocabulary has, too
            tokenizer.encode(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and its Rust panics by what is none
        raise ValueError(one_line(error)) from None
    return tokenizer


def read_tokenizer(path: str | Path) -> Tokenizer:
    """What `vocabularies.write_word_pieces` wrote.

    Raises:
      UserError: the file is missing, corrupt, or no such file.
    """
    try:
        return settled(Tokenizer.from_str, json.dumps(files.read_json(path)))
    except files.CorruptError as error:
        raise UserError(
            f"text tokenizer {error}; delete it, and the run's train.py command writes it anew"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"text tokenizer {path} cannot be read: {one_line(error)}") from None


class CaptionReader(TextTokenizer):
    """The tokenizer of a run folder."""

    def __init__(self, path: str | Path, text_len: int):
        """See `read_tokenizer`."""
        tokenizer = read_tokenizer(path)
        super().__init__(tokenizer, text_len, unknown=getattr(tokenizer.model, "unk_token", None))
