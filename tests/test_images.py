"""Encoded images: the pixels are those that a viewer shows."""

import numpy as np
import pytest
from folders import encoded
from PIL import Image

from t2i_jax.data import images


def shown(content: bytes, size: int) -> np.ndarray:
    return images.crop(images.decode(content), size)


def test_antialiased_and_cropped_at_the_centre():
    """Of 1-pixel squares no pattern is left; where no filter is, one would be."""
    squares = np.indices((160, 240)).sum(0) % 2 * 255
    coloured = np.stack([squares] * 3, -1).astype(np.uint8)
    coloured[:, :30] = coloured[:, -30:] = (255, 0, 0)
    image = shown(encoded(Image.fromarray(coloured)), 16)
    assert np.abs(image[:, 1:-1].astype(int) - 127).max() < 5
    aliased = np.array(Image.fromarray(coloured[:, 40:200]).resize((17, 17), Image.Resampling.NEAREST))
    assert np.abs(aliased.astype(int) - 127).max() > 100


def test_16_bits_are_scaled():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    pixels = shown(encoded(Image.fromarray(np.tile(ramp, (256, 1)))), 256)
    assert np.abs(pixels[..., 0] - np.arange(256.0)).max() <= 1
    assert (pixels[..., :1] == pixels).all()


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (7, 7)), (6, (0, 7)), (8, (7, 0))])
def test_turned_upright(orientation, corner):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(pixels), exif=exif)
    assert np.argwhere(shown(content, 8)[..., 0] == 255).tolist() == [list(corner)]


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
    pixels = shown(encoded(image), 8)
    assert (pixels[:4] == 0).all()
    assert (pixels[4:] == 255).all()


def test_pixels_of_no_known_range():
    content = encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    with pytest.raises(ValueError, match="no known range"):
        shown(content, 8)


def test_random_squares_are_upright_parts_of_the_asked_sizes():
    """Of a picture whose colours are places: red grows to the right, green downwards."""
    height, width = 60, 90
    places = np.stack([*np.indices((height, width))[::-1], np.zeros((height, width))], -1)
    image, rng = Image.fromarray(np.uint8(places)), np.random.default_rng(0)
    sides, lefts, tops = [], [], []
    for _ in range(300):
        pixels = images.random_crop(image, 9, (0.5, 0.8), rng).astype(float)
        across, down = (pixels[4, -1, 0] - pixels[4, 0, 0]), (pixels[-1, 4, 1] - pixels[0, 4, 1])
        assert abs(across - down) <= 2  # as wide as high
        sides.append(across * 9 / 8)
        lefts.append(pixels[4, 4, 0] - sides[-1] / 2)
        tops.append(pixels[4, 4, 1] - sides[-1] / 2)
    assert 29 <= min(sides) < 32
    assert 46 < max(sides) <= 49
    for places, free in ((lefts, width - 39), (tops, height - 39)):
        assert min(places) < 2
        assert np.mean(places) == pytest.approx(free / 2, rel=0.15)
    whole = images.random_crop(image, 9, (1.0, 1.0), rng)
    assert abs(float(whole[-1, 4, 1]) - float(whole[0, 4, 1])) > 49


def test_formats_whose_decoder_starts_another_program_are_not_tried():
    eps = encoded(Image.new("RGB", (8, 8)), "EPS")
    with pytest.raises(images.Unreadable, match="in no format that is read"):
        images.decode(eps)
