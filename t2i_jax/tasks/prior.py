"""Learn the distribution of a tokenizer's codes, given a caption or nothing."""

import math
from collections.abc import Callable

import numpy as np

from t2i_jax.pipelines.prior import Prior
from t2i_jax.tasks import Phase
from t2i_jax.tasks.tokens import TokenTask, prediction_loss, project


class Task(TokenTask):
    """Cross entropy of the image tokens, each predicted from those before it."""

    pipeline = Prior

    def init(self, key, batch: dict) -> dict:
        return self.model.init(key, batch["text_ids"], batch["text_mask"], batch["ids"], batch["null"])

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.loss(loss_fn), self.config.optim),)

    def from_tokenizer(self, params: dict, codebook: np.ndarray, positions: np.ndarray, key) -> dict:
        """The token embedding begins as a random projection of the codebook; convolutions know positions."""
        rows = project((codebook - codebook.mean(0)) / codebook.std(), self.model.width, key)
        return {**params, "token_embed": {"embedding": rows}}

    def evaluators(self) -> dict[str, Callable]:
        """The scores of all token tasks, and `bits`, the cross entropy in bits a code."""
        translation = super().evaluators()["translation"]

        def evaluate(params, variables):
            scores, grids = translation(params, variables)
            return {"bits": scores["nats"] / math.log(2), **scores}, grids

        return {"translation": evaluate}

    def show(self, pipe) -> np.ndarray:
        return super().show(pipe) if pipe.conditional else pipe.sample(16, self.config.seed)


def loss_fn(model, params, variables, batch, *, step, rngs, train):
    """Cross entropy of the image tokens, each predicted from those before it, in nats a token.

    Args:
      batch: see `TokenTask.transform`.

    Returns:
      loss, (variables, metrics).
    """
    logits = model.apply(
        {"params": params},
        batch["text_ids"],
        batch["text_mask"],
        batch["ids"],
        batch["null"],
        train=train,
        rngs=rngs,
    )
    loss, metrics = prediction_loss(logits, batch["ids"])
    return loss, (variables, metrics)
