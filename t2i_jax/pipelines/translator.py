"""A run folder of a translator, opened: captions -> pictures."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from t2i_jax.pipelines.insight import Insight, attention_to_words, look
from t2i_jax.pipelines.reranking import best, likelihood_ratio
from t2i_jax.pipelines.tokenizer import Tokenizer
from t2i_jax.random import stream as random_stream
from t2i_jax.sampling.settings import Settings

GREY = 128  # of what is not yet drawn


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
        tokenizer = Tokenizer(runs.parent_folder(Path(run), "tokenizer"))
        reader = text.CaptionReader(Path(run) / runs.TEXT_TOKENIZER, self.config.data.text_len)
        self._connect(models.build(self.config), jax.device_put(params), tokenizer, reader)

    @classmethod
    def of_parts(cls, config, model, params, tokenizer: Tokenizer, reader: text.CaptionReader) -> "Translator":
        """A translator in memory, for images during training; the tokenizer works on all devices of `params`."""
        self = cls.__new__(cls)
        tokenizer.share_devices(params)
        self.config, self.digest = config, ""
        self._connect(model, params, tokenizer, reader)
        return self

    def __repr__(self) -> str:
        tokenizer = self.tokenizer
        own, others = about.parameters(self._params), about.parameters(tokenizer.params)
        return (
            f"{about.name_of(self)}\n  {self.reads} -> {tokenizer.grid} -> {about.pictures(tokenizer.shape)}\n"
            f"  {own}, and {others} of {tokenizer.config.name}"
        )

    @property
    def reads(self) -> str:
        """What it reads, in words."""
        return f"captions of {self._reader}"

    def _connect(self, model, params, tokenizer, reader):
        size = self.config.data.get("image_size")  # converted weights do not say it
        self.tokenizer = tokenizer.at_size(size) if size else tokenizer
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
        sampler = self.sampler(**settings)
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

    def stream(
        self, prompt: str, num_images: int = 1, seed: int = 0, *, parts: int = 8, **settings
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Images of one prompt while their tokens are drawn.

        Cells whose tokens are not all drawn are mid grey. The last images are those of a call, bit for bit.

        Args:
          prompt, num_images, seed, settings: as of a call.
          parts: how often to look, about evenly; more than `batches.BATCH` images are drawn so many at a time.

        Yields:
          The share of tokens that are drawn, in (0, 1], and uint8 [n, H, W, C].

        Raises:
          UserError: as a call, or `parts` below 1.
        """
        ranges.check("num_images", num_images, ranges.COUNT)
        ranges.check("parts", parts, ranges.COUNT)
        sampler = self.sampler(**settings)
        texts = self._encode([prompt] * num_images)
        ids = np.zeros((num_images, self.tokenizer.num_tokens), np.int32)
        done, start = np.zeros(num_images, int), 0
        for count, inputs in self._batches(*texts, np.arange(num_images), seed):
            part = slice(start, start + count)
            for drawn, length in sampler.draw_in_parts(self._model, self._params, *inputs, parts=parts):
                ids[part], done[part] = batches.fetch(drawn)[:count], length
                yield float(done.mean() / ids.shape[1]), self._shown(ids, done)
            start += count

    def _shown(self, ids, done):
        """Images of which the first `done` tokens are drawn."""
        images = self._images(ids)
        for image, first in zip(images, done, strict=True):
            for top, left, bottom, right in self.tokenizer.cells[first:]:
                image[top:bottom, left:right] = GREY
        return images

    def insight(self, prompt: str, num_images: int = 1, seed: int = 0, **settings) -> Insight:
        """Images as a call draws them, how sure the model was of each token, and which words it looked at.

        Args:
          prompt, num_images, seed, settings: as of a call.

        Raises:
          UserError: as a call.
        """
        ranges.check("num_images", num_images, ranges.COUNT)
        ids = self.draw_ids([prompt] * num_images, np.arange(num_images), seed, self.sampler(**settings))
        texts = (rows.repeat(num_images, axis=0) for rows in self._encode([prompt]))
        seen = partial(look, self._model, self._params, valid=self.tokenizer.valid_ids)
        found = batches.in_batches(seen, *texts, ids, like=self._params)
        words, attention = self._reader.words(prompt), None
        if found.shape[-1] > 1:
            attention = attention_to_words(found[..., 1:], [places for _, places in words])
        words = [word for word, _ in words]
        return Insight(self._images(ids), found[..., 0], attention, words, self.tokenizer.cells)

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

    def unknown_words(self, prompts: Iterable[str]) -> list[str]:
        """Words of the prompts that the run never read, each once.

        Raises:
          UserError: as `__call__`.
        """
        return sorted(set(self._reader.encode_prompts(prompts)[2]))

    def _encode(self, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask [B, S]; see `check`."""
        text_ids, text_mask, words = self._reader.encode_prompts(prompts)
        if unknown := set(words) - self._named:
            named = ", ".join(sorted(unknown))
            print(f"warning: this run never read these words and cannot follow them: {named}", file=sys.stderr)
        self._named |= unknown
        return text_ids, text_mask

    def sampler(self, **settings) -> Settings:
        """`sampling` with other settings.

        Raises:
          UserError: there is no such setting, a value out of its range or that does not fit the run's tokens, or
            guidance in a run that never saw an image without its caption.
        """
        sampler = self.sampling.replace(**settings)
        sampling.check_guidance(sampler, self._caption_dropout)
        sampler.check_fits(self._model)
        return sampler

    def draw_ids(self, prompts: Sequence[str], indices: np.ndarray, seed: int, sampler: Settings) -> np.ndarray:
        """Image tokens of one image a prompt.

        Args:
          prompts: B captions.
          indices: [B], each image's index: its random stream depends on this and the seed alone.
          seed: 0 to `random.MAX_SEED`.
          sampler: as `sampling`, or of `sampler(...)`.

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
          UserError: see `draw_ids` and `Tokenizer.check_ids`; a run that never saw a picture without its caption.
        """
        self._check_null()
        ids = self.tokenizer.check_ids(ids)
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
        drawn = []
        for count, inputs in self._batches(text_ids, text_mask, indices, seed, null):
            drawn.append(batches.fetch(sampler.draw(self._model, self._params, *inputs))[:count])
        return np.concatenate(drawn)

    def _batches(self, text_ids, text_mask, indices, seed, null=False) -> Iterator[tuple[int, tuple]]:
        """Of every batch how many images it has, and what its sampler reads behind model and parameters."""
        keys = jax.vmap(partial(jax.random.fold_in, random_stream(seed, "sample")))(jnp.asarray(indices))
        key_data = np.asarray(jax.random.key_data(keys))
        for start in range(0, len(text_ids), batches.BATCH):
            part = slice(start, start + batches.BATCH)
            condition = text_ids[part], text_mask[part], np.full(len(text_ids[part]), null)
            texts, rows = batches.distinct(condition, self._params)
            own = texts if rows is None else (rows,)
            data, *own = batches.split_rows(batches.fill((key_data[part], *own)), self._params)
            condition, rows = (tuple(own), None) if rows is None else (texts, *own)
            keys = jax.random.wrap_key_data(data)
            yield len(text_ids[part]), (condition, keys, self.tokenizer.valid_ids, rows)
