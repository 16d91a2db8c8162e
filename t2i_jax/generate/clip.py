"""A released CLIP, opened: how well pictures agree with captions."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import FrozenConfigDict

from t2i_jax.convert import clip
from t2i_jax.generate.batches import padded
from t2i_jax.models.clip import Model


class Clip:
    """CLIP's towers with its tokenizer; see `convert.clip.load` for the argument and the errors."""

    def __init__(self, name_or_folder: str | Path):
        fields, params, self._tokenizer = clip.load(name_or_folder)
        model, self._params = Model(**FrozenConfigDict(fields)), jax.tree.map(jnp.asarray, params)
        self._agree = jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs))

    def __call__(self, prompts: Sequence[str], images: UInt8[np.ndarray, "B H H 3"]) -> Float[np.ndarray, "B"]:
        """Cosine of each prompt and the picture beside it, in [-1, 1]; prompts above 77 pieces are cut."""
        ids, scores = clip.encode(self._tokenizer, prompts), []
        for rows, count in padded(np.arange(len(images))):
            score = self._agree(self._params, ids[rows], images[rows].astype(np.float32) / 255)
            scores.append(np.asarray(score)[:count])
        return np.concatenate(scores)
