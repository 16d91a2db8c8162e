"""Translate captions into a tokenizer's image tokens, by an encoder and a decoder."""

import hashlib
import sys
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from t2i_jax import files, runs
from t2i_jax.errors import UserError
from t2i_jax.tasks import Data, frozen_text, pretrained
from t2i_jax.tasks.tokens import TokenTask, project


class Task(TokenTask):
    """Cross entropy of the image tokens under teacher forcing.

    Where the encoder is frozen and drops nothing, it runs once for each distinct caption, and batches of training
    hold its outputs, `text_features` [B, S, D].
    """

    features = None  # looked up where there are any

    @cached_property
    def encodes_once(self) -> bool:
        return frozen_text.is_constant(self.config, self.model)

    def batch_spec(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        spec = super().batch_spec(size)
        if self.encodes_once:
            spec["text_features"] = frozen_text.spec(self.model, size, self.config.data.text_len)
        return spec

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
        begun = self.started(folder) or config.init_from
        self.released, self.vocabulary = ({}, None) if begun else pretrained.load_weights(config)

    def prepare(self, folder: Path, parents: dict) -> Data:
        """See `TokenTask.prepare`; evaluators read no features: they run the encoder, as sampling does."""
        data = super().prepare(folder, parents)
        made_of = (self.encoded.splits["train"].data, files.sha256_of(folder / runs.TEXT_TOKENIZER))
        self.captions = hashlib.sha256(f"{made_of} {self.config.data.text_len}".encode()).hexdigest()
        return data._replace(transform=self.training_transform)

    def training_transform(self, example: dict, rng: np.random.Generator) -> dict:
        """As `transform`, with the features of the caption after `before_training`, where the encoder is frozen."""
        arrays = self.transform(example, rng)
        if self.features is not None:
            arrays["text_features"] = self.features(arrays["text_ids"], arrays["text_mask"])
        return arrays

    def before_training(self, params: dict) -> None:
        """See `Task.before_training`; a frozen encoder runs here, and at no step."""
        if not self.encodes_once:
            if frozen_text.is_untrained(self.config, self.model):
                print(
                    "the encoder is frozen but has dropout, so it runs at every step; once for each caption:"
                    " --config.model.encoder.dropout=0 --config.model.encoder.attention_dropout=0",
                    file=sys.stderr,
                )
            return
        self.features = frozen_text.load(
            self.model,
            params,
            self.reader,
            self.encoded.splits["train"].captions(),
            digest=self.captions,
            run=self.tokenizer_run,
            folder=self.encoded.folder,
        )

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
        # Not larger in a narrow model, as its kernels are: docs/recipe-digits.md.
        codes = 0.02 * project((codebook - codebook.mean(0)) / codebook.std(), width, key)
        just_read = np.pad(positions[:-1], ((1, 0), (0, 0)))
        projected = project(np.concatenate([positions, just_read], 1), width, jax.random.fold_in(key, 1))
        projected = projected * (learned.std() / projected.std())
        embeddings = {
            "token_embed": {"embedding": table.at[: len(codes)].set(codes)},
            "position_embed": {"embedding": learned.at[: len(projected)].set(projected)},
        }
        return {**params, "head": {**params["head"], "kernel": codes.T}, "gpt2": {**gpt2, **embeddings}}
