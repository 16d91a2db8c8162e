"""A run folder of a translator, opened: captions -> pictures."""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Real
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import models, ranges, runs, sampling
from t2i_jax.data import text
from t2i_jax.errors import UserError
from t2i_jax.pictures import to_uint8
from t2i_jax.pipelines import about, batches
from t2i_jax.pipelines.reranking import best, likelihood_ratio
from t2i_jax.pipelines.tokenizer import Tokenizer
from t2i_jax.random import stream
from t2i_jax.sampling.settings import Settings


class Translator:
    """A translator with its picture tokenizer: captions -> pictures.

    Attributes:
      config: of its run.
      sampling: the sampler that the run's config describes.
      digest: of its weights.
      tokenizer: the picture tokenizer that lies in the run.
      beside_uniform: whether pictures of uniform ids are judged beside its own.
    """

    beside_uniform = False

    def __init__(self, run: str | Path, recover: Callable | None = None):
        self.config = runs.read_config(run)
        params, _, self.step, self.digest = runs.read_weights(run, recover)
        self.tokenizer = Tokenizer(runs.parent_folder(Path(run), "tokenizer"))
        reader = text.CaptionReader(Path(run) / runs.TEXT_TOKENIZER, self.config.data.text_len)
        self._connect(models.build(self.config), jax.device_put(params), reader)

    @classmethod
    def of_parts(cls, config, model, params, tokenizer: Tokenizer, reader: text.CaptionReader) -> "Translator":
        """A translator in memory, for images during training; the tokenizer works on all devices of `params`."""
        self = cls.__new__(cls)
        tokenizer.share_devices(params)
        self.config, self.tokenizer, self.digest = config, tokenizer, ""
        self._connect(model, params, reader)
        return self

    def __repr__(self) -> str:
        tokenizer = self.tokenizer
        own, others = about.parameters(self._params), about.parameters(tokenizer.params)
        return (
            f"{about.name_of(self)}\n  {self.reads} -> {tokenizer.grid} -> {about.pictures(tokenizer.config)}\n"
            f"  {own}, and {others} of {tokenizer.config.name}"
        )

    @property
    def reads(self) -> str:
        """What it reads, in words."""
        return f"captions of {self._reader}"

    def _connect(self, model, params, reader):
        self.sampling = sampling.make(self.config.sampling)
        self._model, self._params, self._reader = model, params, reader
        self._named = set()  # unknown words that were warned of

    def __call__(
        self,
        prompts: Iterable[str],
        num_images: int = 1,
        seed: int = 0,
        *,
        first: int = 0,
        candidates: int | None = None,
        rerank: Callable[[Sequence[str], np.ndarray], np.ndarray] | None = None,
        **settings,
    ) -> np.ndarray:
        """Sample images.

        An image depends on its prompt, the settings, the seed and its index, first <= index < first + num_images;
        not on the other prompts, nor on its place among them.

        Args:
          prompts: captions.
          num_images: n, images a prompt.
          seed: 0 to `random.MAX_SEED`.
          first: index of each prompt's first image (or candidate).
          candidates: sample so many images a prompt, and keep the n best, the best first; None samples n and keeps
            them in order of their indices.
          rerank: says how good candidates are, `(B prompts, uint8 [B, H, W, C]) -> [B]`, as a `Clip` does; None is
            the log-likelihood ratio of an image's tokens (see `likelihood_ratios`).
          **settings: of the sampler, that differ from the run's (see `sampling.autoregressive.Autoregressive`).

        Returns:
          uint8 [P, n, H, W, C].

        Raises:
          UserError: an empty or too long prompt, a setting or seed out of its range, guidance in a run that never
            saw an image without its caption, fewer candidates than images, or `rerank` without candidates.
        """
        ranges.check("num_images", num_images, ranges.COUNT)
        ranges.check("first", first, ranges.COUNT_OR_0)
        sampler = self.sampling.replace(**settings)
        prompts = self.check(prompts)  # before they are repeated, so that an error numbers them as given
        if candidates is not None and candidates < num_images:
            raise UserError(f"candidates {candidates} is below the {num_images} pictures to keep of them; raise it")
        if rerank is not None and candidates is None:
            raise UserError("rerank needs candidates to choose from; give more candidates than num_images")
        if candidates is not None and rerank is None:
            self._check_null()
        count = candidates or num_images
        repeated = [prompt for prompt in prompts for _ in range(count)]
        ids = self.draw_ids(repeated, np.tile(np.arange(first, first + count), len(prompts)), seed, sampler)
        if candidates is not None:
            scores = self._score(rerank, repeated, ids) if rerank else self.likelihood_ratios(repeated, ids)
            ids = best(ids, scores, count, num_images)
        images = self._images(ids)
        return images.reshape(len(prompts), num_images, *images.shape[1:])

    def check(self, prompts: Iterable[str]) -> list[str]:
        """The prompts, of which none is empty or too long; words that the run never read are named, once.

        Raises:
          UserError: as `__call__`.
        """
        if isinstance(prompts, str):
            raise UserError(f"prompts is one string ({prompts!r}); give a list of strings")
        prompts = list(prompts)
        self._encode(prompts)
        return prompts

    def _encode(self, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask [B, S]; see `check`."""
        text_ids, text_mask, words = self._reader.encode_prompts(prompts)
        if unknown := set(words) - self._named:
            named = ", ".join(sorted(unknown))
            print(f"warning: this run never read these words and cannot follow them: {named}", file=sys.stderr)
        self._named |= unknown
        return text_ids, text_mask

    def draw_ids(self, prompts: Sequence[str], indices: np.ndarray, seed: int, sampler: Settings) -> np.ndarray:
        """Image tokens of one image a prompt.

        Args:
          prompts: B captions.
          indices: [B], each image's index: its random stream depends on this and the seed alone.
          seed: 0 to `random.MAX_SEED`.
          sampler: as `sampling`, or `sampling.replace(...)`.

        Returns:
          int32 [B, N] in [0, K), each valid at its position.

        Raises:
          UserError: an empty or too long prompt, a seed out of range, or guidance in a run that never saw an image
            without its caption.
        """
        sampling.check_guidance(sampler, self._caption_dropout)
        return self._draw(*self._encode(prompts), indices, seed, sampler)

    def likelihood_ratios(self, prompts: Sequence[str], ids: np.ndarray) -> np.ndarray:
        """How much likelier each prompt makes the image tokens beside it, as a float32 [B] in nats.

        Args:
          prompts: B captions.
          ids: [B, N] in [0, K).

        Raises:
          UserError: an empty or too long prompt, or a run that never saw a picture without its caption.
        """
        self._check_null()
        text_ids, text_mask, _ = self._reader.encode_prompts(prompts)
        ratio = partial(likelihood_ratio, self._model, self._params)
        return batches.in_batches(ratio, ids, text_ids, text_mask, like=self._params)

    def _images(self, ids):
        return to_uint8(self.tokenizer.detokenize(ids))

    def _score(self, rerank, prompts, ids):
        starts = range(0, len(ids), batches.BATCH)  # so that no more images than these are in memory
        parts = [slice(start, start + batches.BATCH) for start in starts]
        return np.concatenate([np.asarray(rerank(prompts[part], self._images(ids[part]))) for part in parts])

    @property
    def _caption_dropout(self) -> Real:
        return self.config.data.get("caption_dropout", 0)  # converted weights were trained without

    def _check_null(self):
        if not self._caption_dropout:
            raise UserError(
                "this run never saw a picture without its caption (config.data.caption_dropout 0), so it cannot say"
                " what a caption changes; draw without candidates, or give them another rerank"
            )

    def _draw(self, text_ids, text_mask, indices, seed, sampler, null=False) -> np.ndarray:
        keys = jax.vmap(partial(jax.random.fold_in, stream(seed, "sample")))(jnp.asarray(indices))
        key_data = np.asarray(jax.random.key_data(keys))

        def draw(condition, key_data, rows=None):
            keys = jax.random.wrap_key_data(key_data)
            return sampler.draw(self._model, self._params, condition, keys, self.tokenizer.valid_ids, rows)

        drawn, in_batches = [], partial(batches.in_batches, like=self._params)
        for start in range(0, len(text_ids), batches.BATCH):
            part = slice(start, start + batches.BATCH)
            condition = text_ids[part], text_mask[part], np.full(len(text_ids[part]), null)
            texts, rows = batches.distinct(condition, self._params)
            if rows is None:
                own = in_batches(lambda key_data, *texts: draw(texts, key_data), key_data[part], *texts)
            else:
                own = in_batches(partial(draw, texts), key_data[part], rows)
            drawn.append(own)
        return np.concatenate(drawn)
