"""Pictures that people hand in."""

import numpy as np

from t2i_jax.errors import UserError


def as_floats(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Pictures [B, H, W, C], uint8 or floats in [0, 1], as float32 in [0, 1].

    Args:
      images: any array.
      shape: [H, W, C] that the model reads.

    Raises:
      UserError: another shape, or floats outside [0, 1].
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != shape:
        expected = ", ".join(map(str, ("B", *shape)))
        raise UserError(f"pictures have shape {images.shape}; this run reads [{expected}]")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
    elif not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"pictures are {images.dtype}; give uint8, or floats in [0, 1]")
    elif images.size and not (images.min() >= 0 and images.max() <= 1):
        raise UserError(f"pixels reach from {images.min():g} to {images.max():g}; scale them to [0, 1]")
    return images.astype(np.float32)
