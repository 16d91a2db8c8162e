"""Learn the distribution of a tokenizer's codes, given a caption or nothing."""

import math

import numpy as np

from t2i_jax.pictures import picture_grid
from t2i_jax.pipelines.prior import Prior
from t2i_jax.tasks import Evaluator
from t2i_jax.tasks.tokens import TokenTask, project


class Task(TokenTask):
    """Cross entropy of the image tokens, each predicted from those before it."""

    pipeline = Prior

    def from_tokenizer(self, params: dict, codebook: np.ndarray, positions: np.ndarray, key) -> dict:
        """The token embedding begins as a random projection of the codebook; convolutions know positions."""
        rows = project((codebook - codebook.mean(0)) / codebook.std(), self.model.width, key)
        return {**params, "token_embed": {"embedding": rows}}

    def evaluators(self) -> dict[str, Evaluator]:
        """The scores of all token tasks, and `bits`, the cross entropy in bits a code."""
        found = super().evaluators()
        translation = found["translation"]

        def evaluate(params, variables):
            scores, grids = translation.evaluate(params, variables)
            return {"bits": scores["nats"] / math.log(2), **scores}, grids

        return {**found, "translation": translation._replace(evaluate=evaluate)}

    def show(self, pipe) -> np.ndarray:
        if pipe.conditional:
            return super().show(pipe)
        return picture_grid(pipe.sample(16, self.config.seed), columns=8)
