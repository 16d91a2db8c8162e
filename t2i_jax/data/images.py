"""Encoded images -> pixels, as a viewer shows them."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps


def square(content: bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """An encoded image's central square, scaled with antialiasing.

    Raises:
      Exception: of any kind, as Pillow's decoders do; the image is corrupt.
    """
    with Image.open(io.BytesIO(content)) as opened:
        return np.array(ImageOps.fit(to_rgb(opened), (size, size), Image.Resampling.LANCZOS))


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of 8 bits: turned as its EXIF data say, 16 bits scaled to 8, what is transparent on white.

    Raises:
      ValueError: pixels are floating-point numbers, whose range is not known.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):  # Pillow's grey of 16 bits; its own conversion would cut at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
