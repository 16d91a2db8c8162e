"""Translate captions into a tokenizer's image tokens, by an encoder and a decoder."""

from pathlib import Path

import jax
import numpy as np

from t2i_jax import runs
from t2i_jax.errors import UserError
from t2i_jax.tasks import Phase, pretrained
from t2i_jax.tasks.tokens import TokenTask, prediction_loss, project


class Task(TokenTask):
    """Cross entropy of the image tokens under teacher forcing."""

    def check(self, folder: Path) -> None:
        """See `Task.check`; released weights that the config names are read here."""
        super().check(folder)
        config = self.config
        asked = [name for name in ("encoder_weights", "decoder_weights", "init_from_tokenizer") if config[name]]
        if asked and not pretrained.fits(self.model):
            raise UserError(
                f"config.{asked[0]} {config[asked[0]]!r} needs a model of BERT and GPT-2; the model"
                f" {config.model_name} starts at random: switch it off"
            )
        started = runs.checkpoint_steps(folder) and (folder / runs.TEXT_TOKENIZER).exists()
        self.released, self.vocabulary = ({}, None) if started else pretrained.load_weights(config)

    def transform(self, example: dict, rng: np.random.Generator) -> dict:
        """As of all token tasks; a fraction `data.code_noise` of the decoder's ids is random (taming's pkeep)."""
        ids, size = example["ids"], self.config.model.codebook_size
        noisy = np.where(rng.random(len(ids)) < self.config.data.code_noise, rng.integers(0, size, len(ids)), ids)
        decoder_ids = np.concatenate([[size], noisy[:-1]]).astype(np.int32)
        return {**super().transform(example, rng), "decoder_ids": decoder_ids}

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(self.loss(loss_fn), self.config.optim),)

    def warm_start(self, params: dict, variables: dict, key) -> tuple[dict, dict]:
        """What the tokenizer knows, then released weights over it."""
        params, variables = super().warm_start(params, variables, key)
        params, self.released = pretrained.put(self.released, params), {}  # as large as the model
        return params, variables

    def from_tokenizer(self, params: dict, codebook: np.ndarray, positions: np.ndarray, key) -> dict:
        """Token embedding and head are one random projection of the codebook, position embeddings one of positions.

        Codes that look alike begin alike, so that what is learned of one carries over to its neighbours. Position
        embeddings are projections of the position that is written and of the one just read: so attention from one
        to the other is learned for all positions at once.
        """
        gpt2 = params["gpt2"]
        table, learned = (gpt2[name]["embedding"] for name in ("token_embed", "position_embed"))
        width = table.shape[1]
        codes = 0.02 * project((codebook - codebook.mean(0)) / codebook.std(), width, key)
        just_read = np.pad(positions[:-1], ((1, 0), (0, 0)))
        projected = project(np.concatenate([positions, just_read], 1), width, jax.random.fold_in(key, 1))
        projected = projected * (learned.std() / projected.std())
        embeddings = {
            "token_embed": {"embedding": table.at[: len(codes)].set(codes)},
            "position_embed": {"embedding": learned.at[: len(projected)].set(projected)},
        }
        return {**params, "head": {**params["head"], "kernel": codes.T}, "gpt2": {**gpt2, **embeddings}}


def loss_fn(model, params, variables, batch, *, step, rngs, train):
    """Cross entropy of the image tokens under teacher forcing, in nats a token.

    Args:
      batch: see `transform`.

    Returns:
      loss, (variables, metrics).
    """
    logits = model.apply(
        {"params": params},
        batch["text_ids"],
        batch["text_mask"],
        batch["decoder_ids"],
        batch["null"],
        train=train,
        rngs=rngs,
    )
    loss, metrics = prediction_loss(logits, batch["ids"])
    return loss, (variables, metrics)
