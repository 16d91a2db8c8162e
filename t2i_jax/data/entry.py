"""A picture with captions, wherever it lies, and what counts as a caption."""

from collections.abc import Callable
from typing import Any, NamedTuple

MAX_BYTES = 512 << 20  # of one picture's file; a tar can claim any size
TOO_LARGE = f"above {MAX_BYTES >> 20} MiB"
UNCAPTIONED = "without a caption"
TEXT_ALONE = "of text without a picture"
CAPTION_KEYS = ("caption", "captions", "text")


class Entry(NamedTuple):
    """A picture that has captions.

    Attributes:
      name: where it lies; no other entry has this name.
      captions: at least one, each with a word, on one line.
      read: its content. Only before the next entry is asked for; raises `images.Unreadable`.
    """

    name: str
    captions: list[str]
    read: Callable[[], bytes]


def clean(captions: Any) -> list[str]:
    """Of a caption, or of a list of them, those that are texts with a word in them; each on one line, and once."""
    texts = [text for text in (captions if isinstance(captions, list) else [captions]) if isinstance(text, str)]
    lines = (" ".join(text.encode("utf-8", "replace").decode().split()) for text in texts)
    return list(dict.fromkeys(filter(None, lines)))


def first_of(row: dict, keys: tuple[str, ...]) -> Any:
    """What a row has under the first of the keys that it has; None without."""
    return next((row[key] for key in keys if row.get(key) is not None), None)
