"""Pictures side by side, with their captions where there are any."""

import io
import json
import math
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

PICTURE = 96  # small pictures are enlarged, by a whole factor, to at least this many pixels
GAP = 4  # between the pictures of one prompt
MARGIN = 16  # between prompts
FONT = 15
NOTE = "t2i"  # the chunk of a PNG that says how its picture was made
MOST_BYTES = 2**27  # of a PNG that is read for its note
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
INK, PAPER = (30, 30, 30), (255, 255, 255)


def to_uint8(images: Float[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B"]:
    """Pixels in [0, 1] as whole numbers 0 to 255, rounded."""
    return np.uint8(images * 255 + 0.5)


def labelled_grid(images: UInt8[np.ndarray, "P n H W C"], captions, columns: int | None = None) -> Image.Image:
    """Pictures with their caption under them, dark on white.

    Args:
      images: n pictures for each of P captions; small ones are enlarged, nearest neighbour.
      captions: P strings; a long one is wrapped to the width of its pictures.
      columns: captions side by side; None makes the grid about 3:2.

    Returns:
      One RGB picture; a caption's pictures stand side by side, eight to a row.

    Raises:
      ValueError: there is no picture, or the numbers of captions and pictures differ.
    """
    if not images.size or len(images) != len(captions):
        raise ValueError(f"{len(captions)} captions for images of shape {images.shape}")
    prompts, num = images.shape[:2]
    images = _enlarged(images)
    per_row = min(num, 8)
    blocks = [picture_grid(pictures, per_row, gap=GAP, paper=PAPER) for pictures in images]
    block_height, block_width = blocks[0].shape[:2]

    font = ImageFont.load_default(size=FONT)
    texts = [_wrap(caption, font, block_width) for caption in captions]
    line_height = math.ceil(FONT * 1.3)
    cell_width = block_width + MARGIN
    cell_height = block_height + GAP + line_height * max(map(len, texts)) + MARGIN
    if columns is None:
        # About 3:2, and in rows of equal length where the number of prompts has such a divisor.
        ideal = max(1, round(math.sqrt(1.5 * prompts * cell_height / cell_width)))
        columns = next((even for even in range(ideal, 2 * ideal) if prompts % even == 0), min(ideal, prompts))

    rows = math.ceil(prompts / columns)
    grid = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), PAPER)
    draw = ImageDraw.Draw(grid)
    for number, (block, lines) in enumerate(zip(blocks, texts, strict=True)):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * cell_width, MARGIN + row * cell_height
        grid.paste(Image.fromarray(block), (left, top))
        for line_number, line in enumerate(lines):
            place = (left + block_width / 2, top + block_height + GAP + line_number * line_height)
            draw.text(place, line, fill=INK, font=font, anchor="ma")
    return grid


def plain_grid(images: UInt8[np.ndarray, "n H W C"]) -> Image.Image:
    """Pictures without captions, in a square or the next wider shape, on white; small ones are enlarged.

    Raises:
      ValueError: there is no picture.
    """
    if not images.size:
        raise ValueError(f"no picture in images of shape {images.shape}")
    columns = math.ceil(math.sqrt(len(images)))
    return Image.fromarray(picture_grid(_enlarged(images), columns, gap=GAP, paper=PAPER))


def picture_grid(
    images: UInt8[np.ndarray, "n H W C"], columns: int, gap: int = 0, paper=(0, 0, 0)
) -> UInt8[np.ndarray, "rows_H columns_W 3"]:
    """Pictures in rows of `columns`, `gap` pixels of the colour `paper` between them and in empty places.

    C is 3 (RGB) or 1 (grey).
    """
    num, height, width, _ = images.shape
    columns = min(columns, num)
    rows = math.ceil(num / columns)
    places = np.empty((rows * columns, height + gap, width + gap, 3), np.uint8)
    places[:] = paper
    places[:num, :height, :width] = images
    grid = rearrange(places, "(row column) h w c -> (row h) (column w) c", row=rows)
    return grid[: len(grid) - gap, : grid.shape[1] - gap]


def pair_grid(
    originals: Float[np.ndarray, "n H W C"], restored: Float[np.ndarray, "n H W C"]
) -> UInt8[np.ndarray, "two_H columns_W 3"]:
    """Pictures with pixels in [0, 1] in one row, over what became of them."""
    return picture_grid(to_uint8(np.concatenate([originals, restored])), columns=len(originals))


def _enlarged(images: UInt8[np.ndarray, "*n H W C"]) -> UInt8[np.ndarray, "*n h w C"]:
    """Pictures of at least PICTURE pixels a side, nearest neighbour."""
    factor = max(1, math.ceil(PICTURE / min(images.shape[-3:-1])))
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def _wrap(caption, font, width):
    """The caption's lines, none wider than `width` pixels; a word that is wider is cut."""
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def to_image(picture: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """RGB where C is 3, grey where it is 1."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def ways(digest: str, seed: int, settings: dict, *, candidates=None, rerank=None, clip=None) -> dict:
    """What decides over pictures beside their prompts: the part of a note that all pictures of a call share."""
    return {"digest": digest, "seed": seed, "candidates": candidates, "rerank": rerank, "clip": clip, **settings}


def to_png(image: Image.Image, note: dict) -> bytes:
    """A PNG that says in itself how it was made: `note` as JSON, and its "prompt" as the text that viewers show."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "t2i_jax")
    if prompt := note.get("prompt"):
        info.add_itxt("Description", "".join(sign if sign.isprintable() else " " for sign in prompt))
    info.add_text(NOTE, json.dumps(note))
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=info)
    return content.getvalue()


def read_note(path: str | Path) -> dict | None:
    """What `to_png` wrote beside a picture; None of any other file, of one that is damaged, and of a huge one."""
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            return None
        content = Path(path).read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            note = json.loads(image.info[NOTE])  # of the chunks before the pixels
            image.verify()
    except Exception:  # of Pillow and json, on whatever the file is
        return None
    return note if isinstance(note, dict) and content.endswith(PNG_END) else None
