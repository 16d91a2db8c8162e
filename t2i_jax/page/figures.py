"""Pictures as HTML that holds them: no file of theirs lies on the server, and nobody else has their address."""

import base64
import html

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8

from t2i_jax.pictures import to_image, to_png

HEAT = np.array([(13, 8, 60), (120, 28, 109), (237, 105, 37), (252, 255, 164)])  # from low to high


def escape(text: str) -> str:
    """A text as HTML; braces too, which the page's templates would read."""
    return html.escape(text).replace("{", "&#123;").replace("$", "&#36;")


def figure(picture: UInt8[np.ndarray, "H W C"], alt: str, caption: str, note: dict | None = None) -> str:
    """A picture with a caption.

    Args:
      picture: its pixels.
      alt: what it shows, for those who do not see it.
      caption: a line under it.
      note: how it was made; it can then be saved as a PNG which holds that.
    """
    source = "data:image/png;base64," + base64.b64encode(to_png(to_image(picture), note or {})).decode()
    image = f'<img src="{source}" alt="{escape(alt)}">'
    caption = escape(caption)
    if note:
        name = f"picture-{note['seed']}-{note['index']}.png"
        caption += f' <a href="{source}" download="{name}" aria-label="Save {escape(caption)} as PNG">save PNG</a>'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def gallery(figures: list[str]) -> str:
    """Figures side by side."""
    return f'<div class="t2i-pictures">{"".join(figures)}</div>'


def drawn(pictures: UInt8[np.ndarray, "n H W C"], prompt: str, notes: list) -> str:
    """Pictures of a prompt with their notes; without one where a picture is not done."""
    return gallery(
        [
            figure(picture, f"{prompt}, picture {number} of {len(pictures)}", f"picture {number}", note)
            for number, (picture, note) in enumerate(zip(pictures, notes, strict=True), start=1)
        ]
    )


def unknown(words: list[str]) -> str:
    """Words that a run never read, if any."""
    said = "This run never read these words and cannot follow them: "
    return f"<p>{said}{escape(', '.join(words))}</p>" if words else ""


def progress(share: float, said: str) -> str:
    """A bar, `share` in [0, 1] of it full."""
    return f'<p><progress max="1" value="{share:.3f}"></progress> {escape(said)}</p>'


def error(said: str) -> str:
    """What went wrong, read out at once by what reads pages aloud."""
    return f'<p class="t2i-error" role="alert">{escape(said)}</p>'


def over_picture(values: Float[np.ndarray, " N"], cells, shape: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """Values of tokens over the pixels of their cells, the mean of all that stand there; 0 where none does.

    Args:
      values: one a token.
      cells: N of (y0, x0, y1, x1), in pixels.
      shape: H and W.
    """
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for value, (y0, x0, y1, x1) in zip(values, cells, strict=True):
        total[y0:y1, x0:x1] += value
        count[y0:y1, x0:x1] += 1
    return total / np.maximum(count, 1)


def heat(values: Float[np.ndarray, "H W"], most: float) -> UInt8[np.ndarray, "H W 3"]:
    """Values from 0 to `most` as colours from dark to bright."""
    places = np.clip(values / max(most, 1e-9), 0, 1) * (len(HEAT) - 1)
    channels = [np.interp(places, range(len(HEAT)), channel) for channel in HEAT.T]
    return rearrange(np.uint8(channels), "c h w -> h w c")


def over(picture: UInt8[np.ndarray, "H W C"], colours: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Colours, through which a picture can be made out in grey."""
    return np.uint8(0.4 * picture.mean(axis=-1, keepdims=True) + 0.6 * colours)


def inside(seen, number: int, prompt: str) -> str:
    """What a translator knew while it drew one picture: how unsure it was of each token, what each word did.

    Args:
      seen: of `Translator.insight`.
      number: the picture, 0 to n - 1.
      prompt: of all.
    """
    picture, entropy = seen.images[number], seen.entropy[number]
    unsure = over_picture(entropy, seen.cells, picture.shape[:2])
    most = float(unsure.max())
    figures = [
        figure(picture, prompt, f"picture {number + 1}"),
        figure(
            heat(unsure, most),
            f"uncertainty of each token, {entropy.min():.2f} to {entropy.max():.2f} nats",
            f"uncertainty: dark is 0, bright {most:.2f} nats a token",
        ),
    ]
    if seen.attention is not None:
        for word, weights in zip(seen.words, seen.attention[number].T, strict=True):
            looked = over_picture(weights, seen.cells, picture.shape[:2])
            shown = over(picture, heat(looked, float(looked.max())))
            figures.append(figure(shown, f"where {word} is read", f"{word}: {weights.mean():.0%} of the attention"))
    return gallery(figures)
