"""Where tokens stand, as numbers."""

import numpy as np
from jaxtyping import Float


def sinusoids(length: int, width: int) -> Float[np.ndarray, "{length} {width}"]:
    """Positions as sines (even channels) and cosines (odd ones) of falling frequency, float32 in [-1, 1].

    Vaswani et al. 2017, section 3.5.

    Raises:
      ValueError: an odd width.
    """
    if width % 2:
        raise ValueError(f"width {width} is odd; sines and cosines come in pairs")
    angles = np.arange(length)[:, None] / 10_000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)
