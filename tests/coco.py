"""A toy COCO folder: the official layout, with every kind of picture that can go wrong."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

NAME = "coco_captions_2017/tiny"
CAPTIONS = 5
GOOD = {1: "wide", 2: "tall", 3: "grey", 4: "cmyk", 5: "small"}
SKIPPED = {
    "corrupt": ["train2017/000000000006.jpg"],
    "in no format that is read": ["train2017/000000000007.jpg"],
    "missing": ["train2017/000000000008.jpg"],
    "without captions": ["train2017/000000000009.jpg"],
    "captioned without a picture": ["train2017/99"],
}
SIZES = {"wide": (61, 32), "tall": (33, 70), "small": (9, 11)}


def jpeg(kind: str, number: int) -> bytes:
    """A JPEG file: noise around a colour that the number gives."""
    rng = np.random.default_rng(number)
    width, height = SIZES.get(kind, (40, 40))
    channels = {"grey": (), "cmyk": (4,)}.get(kind, (3,))
    pixels = (rng.integers(0, 30, (height, width, *channels)) + 20 * number).astype(np.uint8)
    opened = io.BytesIO()
    Image.fromarray(pixels, {"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")).save(opened, "JPEG", quality=95)
    return opened.getvalue()


def write_coco(folder: Path) -> None:
    """Nine pictures for training, of which four are skipped, and two for validation."""
    train = {f"{number:012}.jpg": jpeg(kind, number) for number, kind in GOOD.items()}
    train["000000000006.jpg"] = jpeg("wide", 6)[:300]
    train["000000000007.jpg"] = b"<html>404</html>"
    train["000000000009.jpg"] = jpeg("wide", 9)
    write_part(folder, "train2017", train, range(9, 0, -1), [*range(1, 9), 99])
    validation = {f"{number:012}.jpg": jpeg("wide", number) for number in (11, 10)}
    write_part(folder, "val2017", validation, (11, 10), (11, 10))


def write_part(folder: Path, part: str, files: dict[str, bytes], listed, captioned) -> None:
    for name in (part, "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / part / name).write_bytes(content)
    annotations = [
        {"id": 10 * number + i, "image_id": number, "caption": f"picture {number},\n words  {i} é. "}
        for i in range(CAPTIONS)
        for number in captioned
    ]
    if part == "train2017":
        annotations.append({"id": 5, "image_id": 9, "caption": " \n"})
    images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in listed]
    content = {"info": {}, "images": images, "annotations": annotations}
    (folder / "annotations" / f"captions_{part}.json").write_text(json.dumps(content))


def captions_of(number: int) -> list[bytes]:
    return [f"picture {number}, words {i} é.".encode() for i in range(CAPTIONS)]


class FakeTokenizer:
    """Its tokens are four pixels of an image; `calls` counts the images."""

    codebook_size, num_tokens, digest = 64, 4, "digest"
    calls = 0

    def at_size(self, image_size):
        return self

    def tokenize(self, images):
        self.calls += len(images)
        return images[:, :2, :2, 0].reshape(len(images), 4) % 64
