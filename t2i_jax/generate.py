"""Text -> tokens -> pixels: run folders opened for use. The only file that knows two models."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from numbers import Real
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import models
from t2i_jax.data import text
from t2i_jax.errors import UserError
from t2i_jax.loop import run as runs
from t2i_jax.loop.state import stream
from t2i_jax.sampling.settings import Sampling
from t2i_jax.tasks import translate

BATCH = 64  # most pictures drawn or decoded at a time


def load(run: str | Path) -> "Translator | Tokenizer":
    """Open a run folder: a translator's or a tokenizer's, as its config says.

    Raises:
      UserError: the folder is missing, is no run, has no weights yet, or holds another kind of model.
    """
    kinds = {"translate": Translator, "reconstruct": Tokenizer}
    task = runs.read_config(run).task
    if task not in kinds:
        raise UserError(f"run {run} is of an unknown kind ({task}); this version reads {', '.join(kinds)}")
    return kinds[task](run)


class Tokenizer:
    """An image tokenizer: pictures <-> ids.

    Attributes:
      config: of its run.
      digest: of its weights.
      codebook_size, num_tokens: K and N.
      codebook: float32 [K, D].
    """

    def __init__(self, run: str | Path):
        self.config = runs.read_config(run)
        if self.config.task != "reconstruct":
            raise UserError(f"run {run} holds no image tokenizer; name one that --config=configs/vqvae.py trained")
        params, variables, self.step, self.digest = runs.read_weights(run)
        self._model = models.build(self.config)
        self.codebook_size, self.num_tokens = self._model.codebook_size, self._model.num_tokens
        self._variables = jax.tree.map(jnp.asarray, {"params": params, **variables})
        self._apply = jax.jit(self._model.apply, static_argnames="method")
        self.codebook = np.asarray(self._apply(self._variables, method="codebook"))

    def tokenize(self, images: np.ndarray) -> np.ndarray:
        """Ids int32 [B, N] in [0, K) of pictures [B, H, W, 3]: uint8, or floats in [0, 1].

        Raises:
          UserError: another shape, or floats outside [0, 1].
        """
        images = np.asarray(images)
        side = self.config.model.image_size
        if images.ndim != 4 or images.shape[1:] != (side, side, 3):
            raise UserError(f"pictures have shape {images.shape}; this tokenizer reads [B, {side}, {side}, 3]")
        if images.dtype == np.uint8:
            images = images.astype(np.float32) / 255
        elif not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"pictures are {images.dtype}; give uint8, or floats in [0, 1]")
        elif images.size and not (images.min() >= 0 and images.max() <= 1):
            raise UserError(f"pixels reach from {images.min():g} to {images.max():g}; scale them to [0, 1]")
        return self._in_batches("tokenize", images.astype(np.float32)).astype(np.int32)

    def detokenize(self, ids: np.ndarray) -> np.ndarray:
        """Pictures float32 [B, H, W, 3] in [0, 1] of ids [B, N].

        Raises:
          UserError: another shape, or an id outside [0, K).
        """
        ids, count, size = np.asarray(ids), self.num_tokens, self.codebook_size
        if ids.ndim != 2 or ids.shape[1] != count or not np.issubdtype(ids.dtype, np.integer):
            raise UserError(f"ids are {ids.dtype} of shape {ids.shape}; this tokenizer reads integers [B, {count}]")
        if ids.size and not (ids.min() >= 0 and ids.max() < size):
            raise UserError(f"ids reach from {ids.min()} to {ids.max()}; the codebook holds 0 to {size - 1}")
        return self._in_batches("detokenize", ids.astype(np.int32))

    def _in_batches(self, method: str, rows: np.ndarray) -> np.ndarray:
        apply = partial(self._apply, self._variables, method=method)
        if not len(rows):
            shape = jax.eval_shape(apply, jnp.zeros((1, *rows.shape[1:]), rows.dtype))
            return np.zeros((0, *shape.shape[1:]), shape.dtype)
        return np.concatenate([np.asarray(apply(part))[:count] for part, count in padded(rows)])


class Translator:
    """A translator with its picture tokenizer: captions -> pictures.

    Attributes:
      config: of its run.
      sampling: the run's defaults.
      digest: of its weights.
      tokenizer: the picture tokenizer that lies in the run.
    """

    def __init__(self, run: str | Path):
        self.config = runs.read_config(run)
        params, _, self.step, self.digest = runs.read_weights(run)
        self.tokenizer = Tokenizer(Path(run) / runs.TOKENIZER)
        reader = text.CaptionReader(Path(run) / runs.TEXT_TOKENIZER, self.config.data.text_len)
        self._connect(models.build(self.config), jax.tree.map(jnp.asarray, params), reader)

    @classmethod
    def of_parts(cls, config, model, params, tokenizer: Tokenizer, reader: text.CaptionReader) -> "Translator":
        """A translator in memory, for pictures during training."""
        self = cls.__new__(cls)
        self.config, self.tokenizer, self.digest = config, tokenizer, ""
        self._connect(model, params, reader)
        return self

    def _connect(self, model, params, reader):
        try:
            self.sampling = Sampling(**self.config.sampling)
        except TypeError as error:
            raise UserError(f"config.sampling does not fit this version: {error}") from None
        self._model, self._params, self._reader = model, params, reader

    def __call__(
        self,
        prompts: Sequence[str],
        num_images: int = 1,
        seed: int = 0,
        *,
        temperature: Real | None = None,
        top_k: int | None = None,
        top_p: Real | None = None,
        min_p: Real | None = None,
        plain_tokens: int | None = None,
        guidance_scale: Real | None = None,
    ) -> np.ndarray:
        """Draw pictures.

        A picture depends on its prompt, the settings, the seed and its number, 0 <= number < num_images; not
        on the other prompts, nor on its place among them.

        Args:
          prompts: captions.
          num_images: n, pictures a prompt.
          seed: >= 0.
          temperature, top_k, top_p, min_p, plain_tokens, guidance_scale: see `Sampling`; None is the run's default.

        Returns:
          uint8 [P, n, H, W, 3].

        Raises:
          UserError: an empty or too long prompt, or a setting out of its range.
        """
        if isinstance(prompts, str):
            raise UserError(f"prompts is one string ({prompts!r}); give a list of strings")
        if num_images < 1:
            raise UserError(f"num_images {num_images} is below 1; ask for at least one picture a prompt")
        given = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "plain_tokens": plain_tokens,
            "guidance_scale": guidance_scale,
        }
        sampling = replace(self.sampling, **{name: value for name, value in given.items() if value is not None})
        self._reader.encode_prompts(prompts)  # before they are repeated, so that an error numbers them as given
        repeated = [prompt for prompt in prompts for _ in range(num_images)]
        ids = self.draw_ids(repeated, np.tile(np.arange(num_images), len(prompts)), seed, sampling)
        images = self.tokenizer.detokenize(ids)
        return np.uint8(images * 255 + 0.5).reshape(len(prompts), num_images, *images.shape[1:])

    def draw_ids(self, prompts: Sequence[str], numbers: np.ndarray, seed: int, sampling: Sampling) -> np.ndarray:
        """Image tokens of one picture a prompt.

        Args:
          prompts: B captions.
          numbers: [B], each picture's number: its random stream depends on this and the seed alone.
          seed: >= 0.
          sampling: settings.

        Returns:
          int32 [B, N] in [0, K).

        Raises:
          UserError: an empty or too long prompt, or a negative seed.
        """
        if seed < 0:
            raise UserError(f"seed {seed} is below 0; give a whole number from 0 up")
        text_ids, text_mask, unknown = self._reader.encode_prompts(prompts)
        if unknown:
            words = ", ".join(sorted(set(unknown)))
            print(f"warning: this run never read these words and cannot follow them: {words}", file=sys.stderr)
        keys = jax.vmap(partial(jax.random.fold_in, stream(seed, "sample")))(jnp.asarray(numbers))
        settings = asdict(sampling)
        drawn = []
        for rows, count in padded(np.arange(len(prompts))):
            ids = translate.sample(
                self._model,
                self._params,
                text_ids[rows],
                text_mask[rows],
                keys[rows],
                settings,
                guided=sampling.guidance_scale != 1,
            )
            drawn.append(np.asarray(ids)[:count])
        return np.concatenate(drawn)


def padded(rows: np.ndarray):
    """Batches of at most `BATCH` rows, each repeated up to a power of two: few shapes, few compilations.

    Yields:
      A batch and how many of its leading rows count.
    """
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        size = 1 << (len(part) - 1).bit_length()
        yield np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)]), len(part)
