"""Encoded images: the pixels are those that a viewer shows."""

import io

import numpy as np
import pytest
from PIL import Image

from t2i_jax.data import images


def encoded(image: Image.Image, kind="PNG", **options) -> bytes:
    opened = io.BytesIO()
    image.save(opened, kind, **options)
    return opened.getvalue()


def test_antialiased_and_cropped_at_the_centre():
    """Of 1-pixel squares no pattern is left; where no filter is, one would be."""
    squares = np.indices((160, 240)).sum(0) % 2 * 255
    coloured = np.stack([squares] * 3, -1).astype(np.uint8)
    coloured[:, :30] = coloured[:, -30:] = (255, 0, 0)
    image = images.square(encoded(Image.fromarray(coloured)), 16)
    assert np.abs(image[:, 1:-1].astype(int) - 127).max() < 5
    aliased = np.array(Image.fromarray(coloured[:, 40:200]).resize((17, 17), Image.Resampling.NEAREST))
    assert np.abs(aliased.astype(int) - 127).max() > 100


def test_16_bits_are_scaled():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    pixels = images.square(encoded(Image.fromarray(np.tile(ramp, (256, 1)))), 256)
    assert np.abs(pixels[..., 0] - np.arange(256.0)).max() <= 1
    assert (pixels[..., :1] == pixels).all()


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (7, 7)), (6, (0, 7)), (8, (7, 0))])
def test_turned_upright(orientation, corner):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(pixels), exif=exif)
    assert np.argwhere(images.square(content, 8)[..., 0] == 255).tolist() == [list(corner)]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    """Whatever colour is stored there."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255  # black above, transparent black below
    image = Image.fromarray(pixels).convert(mode)
    if mode == "P":  # one colour of its table is transparent
        image = Image.fromarray(np.repeat([0, 1], 32).astype(np.uint8).reshape(8, 8)).convert("P")
        image.putpalette([0, 0, 0] * 256)
        image.info["transparency"] = 1
    shown = images.square(encoded(image), 8)
    assert (shown[:4] == 0).all()
    assert (shown[4:] == 255).all()


def test_pixels_of_no_known_range():
    content = encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    with pytest.raises(ValueError, match="no known range"):
        images.square(content, 8)
