"""CLIP, opened for use: how well pictures fit their texts."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32
from ml_collections import FrozenConfigDict

from t2i_jax.convert import clip, hub
from t2i_jax.data.clip_text import TextReader
from t2i_jax.errors import UserError
from t2i_jax.models.clip import Model, preprocess
from t2i_jax.pipelines import about
from t2i_jax.pipelines.batches import in_batches
from t2i_jax.pipelines.pixels import as_floats


class Clip:
    """How well pictures fit texts (Radford et al. 2021); ranks a translator's candidates.

    `pipe(prompts, candidates=32, rerank=Clip("openai/clip-vit-base-patch32"))`.

    Attributes:
      fields: of `models.clip.Model`.
    """

    def __init__(self, name_or_folder: str | Path):
        """Read released weights.

        Args:
          name_or_folder: a folder, or the name of a repository on huggingface.co, that holds `config.json`,
            `tokenizer.json` and the weights in one of `convert.weights.FILES`.

        Raises:
          UserError: a file cannot be had or read, or does not fit the others.
        """
        self.fields, params = clip.load(name_or_folder)
        text, side = self.fields["text"], self.fields["vision"]["image_size"]
        vocabulary = hub.find_beside(name_or_folder, ("tokenizer.json",))
        self._reader = TextReader(vocabulary, text["vocab_size"], text["positions"], text["end_id"])
        self._params, model = jax.device_put(params), Model(**FrozenConfigDict(self.fields))

        def encode_images(params, images):
            return model.apply({"params": params}, preprocess(images, side), method="encode_images")

        def encode_texts(params, ids):
            return model.apply({"params": params}, ids, method="encode_texts")

        self._encode_images, self._encode_texts = jax.jit(encode_images), jax.jit(encode_texts)
        self._about = f"Clip {name_or_folder}: {side} x {side} pictures, texts of {self._reader}"

    def __repr__(self) -> str:
        return f"{self._about}\n  {about.parameters(self._params)}"

    def __call__(self, prompts: Sequence[str], images: np.ndarray) -> np.ndarray:
        """How well each prompt fits the picture beside it, as a float32 [B]: the cosine of their features.

        Args:
          prompts: B texts. What is too long for CLIP (75 pieces of words, as released) loses its end.
          images: [B, H, W, C] of any size, C 3 or 1, uint8 or floats in [0, 1].

        Raises:
          UserError: another shape, or floats outside [0, 1].
        """
        images = np.asarray(images)
        if images.ndim != 4 or len(images) != len(prompts) or images.shape[-1] not in (1, 3):
            raise UserError(f"pictures have shape {images.shape}; CLIP reads [{len(prompts)}, H, W, 1 or 3]")
        return np.sum(self.encode_texts(prompts) * self.encode_images(images), axis=-1)

    def encode_images(self, images: np.ndarray) -> Float32[np.ndarray, "B F"]:
        """Features of length 1 of pictures [B, H, W, 3 or 1] of any size, uint8 or floats in [0, 1].

        Raises:
          UserError: floats outside [0, 1].
        """
        floats = as_floats(images, images.shape[1:])
        return in_batches(partial(self._encode_images, self._params), floats, like=self._params)

    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "B F"]:
        """Features of length 1; a text is read once, however often it is there."""
        distinct, rows = np.unique(np.array(texts, object), return_inverse=True)
        ids = self._reader.encode(distinct.tolist())[0]
        return in_batches(partial(self._encode_texts, self._params), ids, like=self._params)[rows]
