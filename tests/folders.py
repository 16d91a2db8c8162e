"""Folders of pictures with captions, as strangers have them."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

ODD = {
    "grey.png": "a grey ramp",
    "grey16.png": "a grey ramp of 16 bits",
    "palette.gif": "a palette",
    "cmyk.jpg": "four inks",
    "alpha.png": "a hole",
    "turned.jpg": "a picture on its side",
    "animated.gif": "two frames",
    "png.jpg": "a wrong suffix",
    "no_suffix": "no suffix at all",
    "wide.webp": "a wide picture",
}
"""Pictures that are used, and their captions."""

SKIPPED = {
    "corrupt": ["cut.jpg"],
    "in no format that is read": ["note.png"],
    "above 20,000 pixels": ["huge.png"],  # while MAX_IMAGE_PIXELS is half of that
    "below 8 pixels a side": ["tiny.png"],
    "of floating-point pixels, which have no known range": ["float.tiff"],
}
"""Pictures that are not."""


def encoded(image: Image.Image, kind="PNG", **options) -> bytes:
    opened = io.BytesIO()
    image.save(opened, kind, **options)
    return opened.getvalue()


def noise(number: int, width=40, height=40) -> Image.Image:
    """Another picture for each number."""
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def write_numbered(folder: Path, numbers) -> None:
    """A picture for each number, with `captions.jsonl`, in which earlier rows stay."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.jsonl").open("a") as rows:
        for number in numbers:
            (folder / f"{number}.png").write_bytes(encoded(noise(number)))
            rows.write(json.dumps({"file": f"{number}.png", "caption": f"picture {number}"}) + "\n")


def odd_pictures() -> dict[str, bytes]:
    """Content by name, of `ODD` and `SKIPPED`."""
    ramp = np.tile(np.linspace(0, 1, 32), (32, 1))
    grey = Image.fromarray(np.uint8(255 * ramp))
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    hole = np.zeros((32, 32, 4), np.uint8)
    hole[:16, :, 3] = 255  # black above, transparent black below
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is left comes to lie above
    sides = np.zeros((32, 32, 3), np.uint8)
    sides[:, :16] = 255
    broad = np.zeros((16, 64, 3), np.uint8)
    broad[:, 24:40] = 255
    return {
        "grey.png": encoded(grey),
        "grey16.png": encoded(Image.fromarray(np.uint16(65535 * ramp))),
        "palette.gif": encoded(red.quantize(4), "GIF"),
        "cmyk.jpg": encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95),
        "alpha.png": encoded(Image.fromarray(hole)),
        "turned.jpg": encoded(Image.fromarray(sides), "JPEG", quality=95, exif=exif),
        "animated.gif": encoded(blue, "GIF", save_all=True, append_images=[red]),
        "png.jpg": encoded(Image.new("RGB", (32, 32), "lime")),
        "no_suffix": encoded(Image.new("RGB", (32, 32), "yellow"), "BMP"),
        "wide.webp": encoded(Image.fromarray(broad), "WEBP", lossless=True),
        "cut.jpg": encoded(noise(0), "JPEG")[:400],
        "note.png": b"<html>404</html>",
        "huge.png": encoded(Image.new("L", (201, 100))),
        "tiny.png": encoded(Image.new("RGB", (40, 7), "red")),
        "float.tiff": encoded(Image.fromarray(np.float32(ramp)), "TIFF"),
    }


def write_odd(folder: Path) -> None:
    """The odd pictures, with captions: of those that are used their own, of the others "skipped"."""
    folder.mkdir()
    rows = []
    for name, content in odd_pictures().items():
        (folder / name).write_bytes(content)
        rows.append(json.dumps({"file": name, "caption": ODD.get(name, "skipped")}))
    (folder / "captions.jsonl").write_text("\n".join(rows))
