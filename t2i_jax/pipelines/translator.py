"""A run folder of a translator, opened: captions -> pictures."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from numbers import Real
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import models, runs
from t2i_jax.data import text
from t2i_jax.errors import UserError
from t2i_jax.pipelines.batches import BATCH, padded
from t2i_jax.pipelines.drawing import sample
from t2i_jax.pipelines.reranking import likelihood_ratio
from t2i_jax.pipelines.tokenizer import Tokenizer
from t2i_jax.random import stream
from t2i_jax.sampling.settings import Sampling


class Translator:
    """A translator with its picture tokenizer: captions -> pictures.

    Attributes:
      config: of its run.
      sampling: the run's defaults.
      digest: of its weights.
      tokenizer: the picture tokenizer that lies in the run.
      beside_uniform: whether pictures of uniform ids are judged beside its own.
    """

    beside_uniform = False

    def __init__(self, run: str | Path, recover: Callable | None = None):
        self.config = runs.read_config(run)
        params, _, self.step, self.digest = runs.read_weights(run, recover)
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
        candidates: int | None = None,
        rerank: Callable[[Sequence[str], np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Draw pictures.

        A picture depends on its prompt, the settings, the seed and its number, 0 <= number < num_images; not
        on the other prompts, nor on its place among them.

        Args:
          prompts: captions.
          num_images: n, pictures a prompt.
          seed: >= 0.
          temperature, top_k, top_p, min_p, plain_tokens, guidance_scale: see `Sampling`; None is the run's default.
          candidates: draw so many pictures a prompt, and keep the n best, the best first; None draws n and keeps
            them in order of their numbers.
          rerank: says how good candidates are, `(B prompts, uint8 [B, H, W, C]) -> [B]`, as a `Clip` does; None is
            how much likelier the prompt makes a picture's tokens (see `likelihood_ratios`).

        Returns:
          uint8 [P, n, H, W, 3].

        Raises:
          UserError: an empty or too long prompt, a setting out of its range, fewer candidates than pictures, or
            `rerank` without candidates.
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
        if candidates is not None and candidates < num_images:
            raise UserError(f"candidates {candidates} is below the {num_images} pictures to keep of them; raise it")
        if rerank is not None and candidates is None:
            raise UserError("rerank needs candidates to choose from; give more candidates than num_images")
        if candidates is not None and rerank is None:
            self._check_null()
        drawn = candidates or num_images
        repeated = [prompt for prompt in prompts for _ in range(drawn)]
        ids = self.draw_ids(repeated, np.tile(np.arange(drawn), len(prompts)), seed, sampling)
        if candidates is not None:
            scores = self._score(rerank, repeated, ids) if rerank else self.likelihood_ratios(repeated, ids)
            best = np.argsort(-scores.reshape(len(prompts), drawn), axis=1, kind="stable")[:, :num_images]
            ids = ids[(best + drawn * np.arange(len(prompts))[:, None]).reshape(-1)]
        images = self._pictures(ids)
        return images.reshape(len(prompts), num_images, *images.shape[1:])

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
        text_ids, text_mask, unknown = self._reader.encode_prompts(prompts)
        if unknown:
            words = ", ".join(sorted(set(unknown)))
            print(f"warning: this run never read these words and cannot follow them: {words}", file=sys.stderr)
        return self._draw(text_ids, text_mask, numbers, seed, sampling, guided=sampling.guidance_scale != 1)

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
        from t2i_jax import tasks

        task = tasks.find(self.config.task)
        ratios = []
        for rows, count in padded(np.arange(len(ids))):
            batch = {"ids": ids[rows], "text_ids": text_ids[rows], "text_mask": text_mask[rows]}
            ratio = likelihood_ratio(task.predict, self._model, self._params, batch)
            ratios.append(np.asarray(ratio)[:count])
        return np.concatenate(ratios)

    def _pictures(self, ids):
        return np.uint8(self.tokenizer.detokenize(ids) * 255 + 0.5)

    def _score(self, rerank, prompts, ids):
        starts = range(0, len(ids), BATCH)  # so that no more pictures than these are in memory
        parts = [slice(start, start + BATCH) for start in starts]
        return np.concatenate([np.asarray(rerank(prompts[part], self._pictures(ids[part]))) for part in parts])

    def _check_null(self):
        if not self.config.data.get("caption_dropout", 0):
            raise UserError(
                "this run never saw a picture without its caption (config.data.caption_dropout 0), so it cannot say"
                " what a caption changes; draw without candidates, or give them another rerank"
            )

    def _draw(self, text_ids, text_mask, numbers, seed, sampling, *, guided, null=False) -> np.ndarray:
        if seed < 0:
            raise UserError(f"seed {seed} is below 0; give a whole number from 0 up")
        keys = jax.vmap(partial(jax.random.fold_in, stream(seed, "sample")))(jnp.asarray(numbers))
        draw = partial(sample, self._model, self._params, settings=asdict(sampling), guided=guided)
        drawn = []
        for rows, count in padded(np.arange(len(text_ids))):
            ids = draw(text_ids[rows], text_mask[rows], keys[rows], null=np.full(len(rows), null))
            drawn.append(np.asarray(ids)[:count])
        return np.concatenate(drawn)
