"""Where tokens stand, as numbers, and how many places there are."""

import numpy as np
from jaxtyping import Float


def check_length(what: str, length: int, reader: str, most: int, field: str) -> None:
    """Whether a sequence has a place for each of its tokens.

    Raises:
      ValueError: `length` is above `most`, which `field` of the model sets.
    """
    if length > most:
        raise ValueError(f"{what} has {length} tokens; {reader} {most} ({field}): shorten it, or raise {field}")


def sinusoids(length: int, width: int) -> Float[np.ndarray, "{length} {width}"]:
    """Positions as sines (even channels) and cosines (odd ones) of falling frequency, float32 in [-1, 1].

    Vaswani et al. 2017, section 3.5.

    Raises:
      ValueError: an odd width.
    """
    if width % 2:
        raise ValueError(f"width {width} is odd; sines and cosines come in pairs: give an even one")
    angles = np.arange(length)[:, None] / 10_000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)
