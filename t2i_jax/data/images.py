"""Encoded images -> pixels, as a viewer shows them."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from t2i_jax.ranges import sides

# Those with a signature, whose decoders lie in Pillow itself: EPS, for one, would start another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
MIN_SIDE = 8  # pixels; below that, it is a separator or a web page's counter


class Unreadable(ValueError):
    """No picture can be made of these bytes; its message is the reason, in a few words."""


def decode(content: bytes, background: str = "white") -> Image.Image:
    """The first frame of an encoded image, as `to_rgb` makes it.

    Raises:
      Unreadable: it is corrupt, cut short, too large to be safe, tiny, or no image of `FORMATS`.
    """
    try:
        with open_image(content) as opened:
            if min(opened.size) < MIN_SIDE:
                raise Unreadable(f"below {MIN_SIDE} pixels a side")
            return to_rgb(opened, background)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable("in no format that is read") from None
    except Image.DecompressionBombError:
        raise Unreadable(f"above {2 * Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError):  # what Pillow makes of broken pictures
        raise Unreadable("corrupt") from None
    except Exception as error:  # its plugins raise whatever they like
        raise Unreadable(f"corrupt ({type(error).__name__})") from None


def open_image(content: bytes) -> Image.Image:
    """An encoded image, of which only the head is read yet; raises what Pillow does."""
    Image.init()
    return Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])


def crop(image: Image.Image, size: int | tuple[int, int]) -> UInt8[np.ndarray, "H W ..."]:
    """The largest part in the middle of an image that has the shape of `size`, scaled with antialiasing.

    Args:
      image: RGB, or grey, of which the result is [H, W].
      size: of the result in pixels, its side or height and width.
    """
    height, width = sides(size)
    return np.array(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))


def random_crop(
    image: Image.Image, size: int | tuple[int, int], scale: tuple[float, float], rng: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """A part anywhere in an image, scaled with antialiasing.

    Args:
      image: RGB.
      size: of the result in pixels, its side or height and width; the part has its shape.
      scale: least and largest part, as shares of the largest one's sides; both in (0, 1].
      rng: draws share and place, each uniformly.
    """
    height, width = sides(size)
    if image.width * height <= image.height * width:
        largest = image.width, image.width * height / width
    else:
        largest = image.height * width / height, image.height
    share = rng.uniform(*scale)
    across, down = (share * length for length in largest)
    left, top = rng.uniform(0, image.width - across), rng.uniform(0, image.height - down)
    box = left, top, min(left + across, image.width), min(top + down, image.height)
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS, box=box))


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """RGB of 8 bits: turned as its EXIF data say, 16 bits scaled to 8, what is transparent on a background.

    Raises:
      Unreadable: pixels are floating-point numbers, whose range is not known.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise Unreadable("of floating-point pixels, which have no known range")
    if image.mode.startswith("I"):  # Pillow's grey of 16 bits; its own conversion would cut at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")
