"""What the page answers to a request: everything in it is checked, pictures are drawn, HTML comes back."""

import base64
import binascii
import dataclasses
import time
from collections.abc import Iterator

import numpy as np

from t2i_jax import pictures, ranges
from t2i_jax.data import images
from t2i_jax.errors import UserError
from t2i_jax.page import figures
from t2i_jax.sampling.settings import check_setting

MAX_PROMPT = 500  # characters
MAX_UPLOAD = 2**23  # bytes of a picture


@dataclasses.dataclass(frozen=True)
class Answers:
    """The page's functions; nothing is kept between two requests.

    Attributes:
      runs: by name, translators.
      max_images: pictures that a request may ask for.
      time_limit: seconds that drawing may take; looked at whenever a part of the tokens is drawn.
    """

    runs: dict
    max_images: int
    time_limit: float

    def fields(self, run: str) -> dict[str, dataclasses.Field]:
        """The settings of a run's sampler, by name."""
        return {field.name: field for field in dataclasses.fields(self.runs[run].sampling)}

    def values(self, run: str) -> list:
        """What these settings are where nobody changes them."""
        return [getattr(self.runs[run].sampling, name) for name in self.fields(run)]

    def draw(self, run, prompt, seed, number, *values) -> Iterator[tuple[str, str]]:
        """Status and pictures, as both go on.

        Args:
          run: its name.
          prompt, seed: as for `t2i sample`.
          number: of pictures.
          *values: of the sampler's settings, in their order; None is the run's own.

        Raises:
          UserError: any of it is not what it has to be, or drawing takes too long.
        """
        settings = self._checked(run, prompt, seed, number, values)
        pipe, end = self.runs[run], time.monotonic() + self.time_limit
        ways = pictures.ways(pipe.digest, seed, vars(pipe.sampler(**settings)))
        words = figures.unknown(pipe.unknown_words([prompt]))
        yield figures.progress(0.0, "starting; the first picture of a size takes longest") + words, ""
        for share, drawn in pipe.stream(prompt, number, seed, **settings):
            done = share >= 1
            notes = [{"prompt": prompt, "index": index, **ways} if done else None for index in range(number)]
            said = "done" if done else f"{share:.0%} of the tokens"
            yield figures.progress(share, said) + words, figures.drawn(drawn, prompt, notes)
            if not done and time.monotonic() > end:
                raise UserError(f"drawing took longer than {self.time_limit:g} s (--time-limit); ask for less")

    def inside(self, run, prompt, seed, picture, *values) -> Iterator[str]:
        """How unsure the run was of each token of a picture, and where it read each word.

        Args:
          run, prompt, seed, *values: see `draw`.
          picture: its number, 1 or above.

        Raises:
          UserError: see `draw`.
        """
        settings = self._checked(run, prompt, seed, picture, values, "picture")
        yield figures.inside(self.runs[run].insight(prompt, picture, seed, **settings), picture - 1, prompt)

    def compare(self, prompt, seed, number, *sides) -> Iterator[tuple[str, str, str]]:
        """Status, pictures at the left and at the right.

        Args:
          prompt, seed, number: of both; see `draw`.
          *sides: run and settings of the left, then as many of the right.

        Raises:
          UserError: see `draw`.
        """
        half, said, done = len(sides) // 2, ["", ""], ["", ""]
        for place, (run, *values) in enumerate((sides[:half], sides[half:])):
            for status, done[place] in self.draw(run, prompt, seed, number, *values):
                said[place] = f"<strong>{('left', 'right')[place]}</strong>{status}"
                yield "".join(said), *done

    def reconstruct(self, run, upload) -> Iterator[str]:
        """A picture of a stranger, and what the run's tokenizer makes of it.

        Args:
          run: its name.
          upload: a data URL.

        Raises:
          UserError: it is none, too large, or no picture.
        """
        tokenizer = self.runs[run].tokenizer
        height, width, channels = tokenizer.shape
        try:
            picture = images.crop(images.decode(_bytes(upload)), (height, width))
        except images.Unreadable as error:
            raise UserError(f"the picture is {error}; choose another, a JPEG or PNG for one") from None
        if channels == 1:
            picture = np.array(pictures.to_image(picture).convert("L"))[..., None]
        back = pictures.to_uint8(tokenizer.detokenize(tokenizer.tokenize(picture[None])))[0]
        error = np.abs(picture / 255 - back / 255).mean()
        said = f"{tokenizer.num_tokens} tokens, {tokenizer.codebook_size} codes, mean error {error:.3f}"
        before = figures.figure(picture, "your picture", f"your picture, {height} x {width}")
        yield figures.gallery([before, figures.figure(back, "the same after the tokenizer", said)])

    def _checked(self, run, prompt, seed, number, values, what="number of pictures") -> dict:
        """The settings that were given; numbers and the prompt are as `t2i sample` would take them."""
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError("there is no prompt; describe a picture")
        if len(prompt) > MAX_PROMPT:
            raise UserError(f"the prompt has {len(prompt)} characters; shorten it to {MAX_PROMPT}")
        if not prompt.isprintable():
            raise UserError("the prompt holds signs that are not printed, such as a line's end; write one line")
        ranges.check("seed", seed, ranges.FIELDS["seed"])
        ranges.check(what, number, ranges.Range(1, self.max_images, whole=True))
        fields = self.fields(run)
        if len(values) != len(fields):
            raise UserError(f"{len(values)} settings are given; this run has {len(fields)}")
        given = {name: value for name, value in zip(fields, values, strict=True) if value is not None}
        settings = {name: check_setting(fields[name], value) for name, value in given.items()}
        self.runs[run].sampler(**settings)
        return settings


def _bytes(upload) -> bytes:
    """What a data URL holds.

    Raises:
      UserError: it is none, or holds more than `MAX_UPLOAD` bytes.
    """
    if not upload:
        raise UserError("no picture is chosen; choose a file first")
    head, _, body = upload.partition(";base64,") if isinstance(upload, str) else ("", "", "")
    if not head.startswith("data:") or not body:
        raise UserError("the picture did not arrive as the page sends it; load the page again")
    if len(body) > MAX_UPLOAD * 4 / 3 + 4:
        raise UserError(f"the picture is above {MAX_UPLOAD // 2**20} MiB; choose a smaller one")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise UserError("the picture did not arrive whole; load the page again") from None
