"""What objectives over image tokens share: tokens of a tokenizer, captions, the loss of predicted ids, scores."""

import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct

from t2i_jax import hosts, losses, runs, sampling, tasks
from t2i_jax.errors import UserError
from t2i_jax.nn.blocks import in_blocks
from t2i_jax.pictures import labelled_grid
from t2i_jax.pipelines.batches import BATCH
from t2i_jax.pipelines.translator import Translator
from t2i_jax.tasks import Data, Evaluator, Overfit, init_from

SHOWN = 8  # captions, where a config names none
JUDGED = 1000  # seed of the prompts that a judge asks during training: those of `t2i evaluate` stay unseen


def loss_fn(model, params, variables, batch, *, step, rngs, train):
    """Cross entropy of the image tokens, each predicted from those before it, in nats a token.

    Args:
      batch: see `TokenTask.transform`. Where it has `given_ids`, the model is given these in place of `ids`; where
        it has `text_features`, its encoder does not run.

    Returns:
      loss, (variables, metrics).
    """
    ids = batch.get("given_ids", batch["ids"])
    features = {"features": batch["text_features"]} if "text_features" in batch else {}
    inputs = batch["text_ids"], batch["text_mask"], ids, batch["null"]
    states = model.apply({"params": params}, *inputs, **features, train=train, rngs=rngs, method="states")
    head = partial(model.apply, {"params": params}, method="logits")
    loss, metrics = prediction_loss(head, states, batch["ids"], model.codebook_size)
    return loss, (variables, metrics)


def prediction_loss(head: Callable, states, ids, count: int) -> tuple[jax.Array, dict]:
    """Cross entropy of ids [B, N] in nats a token, and the share that is the likeliest.

    Where logits [B, N, K] would be large, those of a block of positions are held at a time.

    Args:
      head: states [B, n, D] to logits [B, n, K].
      states: [B, N, D].
      ids: in [0, K).
      count: K.
    """

    def predict(states, ids, key):
        logits = head(states)
        return losses.cross_entropy(logits, ids), jnp.argmax(logits, -1) == ids

    nats, right = in_blocks(predict, (states, ids), len(ids) * count)
    loss = jnp.mean(nats)
    return loss, {"loss": loss, "accuracy": jnp.mean(right)}


class TokenTask(tasks.Task):
    """A batch is what `transform` makes, stacked: image tokens [B, N] and captions [B, S].

    Attributes:
      vocabulary: file of a released text tokenizer; None makes one of the captions.
    """

    pipeline = Translator
    loss_fn = staticmethod(loss_fn)
    vocabulary: Path | None = None

    def check(self, folder: Path) -> None:
        """See `Task.check`; the sampler's settings are in their ranges and fit, a judge asked for is there."""
        sampler = sampling.make(self.config.sampling)
        sampling.check_guidance(sampler, self.config.data.caption_dropout)
        sampler.check_fits(self.model)
        if self.config.judge_every:
            from t2i_jax.evals import report

            report.check_judged(self.config, self.model)

    @staticmethod
    def started(folder: Path) -> bool:
        """Whether a run goes on, with the text tokenizer that it began with."""
        return bool(runs.checkpoint_steps(folder)) and (folder / runs.TEXT_TOKENIZER).exists()

    def batch_spec(self, size: int) -> dict[str, ShapeDtypeStruct]:
        model, length = self.config.model, self.config.data.text_len
        ids = ShapeDtypeStruct((size, model.num_tokens), jnp.int32)
        return {
            "ids": ids,
            **({"given_ids": ids} if "code_noise" in self.config.data else {}),
            "text_ids": ShapeDtypeStruct((size, length), jnp.int32),
            "text_mask": ShapeDtypeStruct((size, length), jnp.bool_),
            "null": ShapeDtypeStruct((size,), jnp.bool_),
        }

    def init(self, key, batch: dict) -> dict:
        return self.model.init(key, batch["text_ids"], batch["text_mask"], batch["ids"], batch["null"])

    def prepare(self, folder: Path, parents: dict) -> Data:
        """See `Task.prepare`: image tokens by the parent `tokenizer`, made once, and a text tokenizer of captions.

        Raises:
          UserError: the tokenizer's codes do not fit `config.model`, or it cannot have pictures of this size;
            `text_vocab_size` is below the number of characters in the captions, no word of these is known, or a
            shown caption is too long.
        """
        from t2i_jax import encode  # imports Grain, which takes a second; sampling does without
        from t2i_jax.data import text, vocabularies

        self.tokenizer = parents["tokenizer"].at_size(self.config.data.image_size)
        path = folder / runs.TEXT_TOKENIZER
        self.tokenizer_run = runs.parents(self.config, folder)["tokenizer"][1]
        self.encoded = encode.encode(self.config, self.tokenizer, self.tokenizer_run)
        captions = self.encoded.splits["train"].captions
        started = self.started(folder)

        def write_pieces():
            if started:
                return
            size = self.config.model.text_vocab_size
            if self.config.init_from:
                pieces = init_from.grown_vocabulary(self.config, captions())
            elif self.vocabulary is None:
                pieces = vocabularies.build_word_pieces(captions(), size)
            else:
                pieces = vocabularies.read_vocabulary(self.vocabulary, size)
            vocabularies.write_word_pieces(path, pieces)

        hosts.on_first(write_pieces)
        self.reader = text.CaptionReader(path, self.config.data.text_len)
        self.text_tokenizer = path
        print(text.describe_losses(self.reader, captions()), file=sys.stderr)
        if self.config.shown_captions and getattr(self.model, "conditional", True):
            try:
                self.reader.encode_prompts(self.config.shown_captions)
            except UserError as error:  # now, not at the first evaluation
                raise UserError(f"config.shown_captions: {error}") from None
        datasets = {split: tokens.dataset() for split, tokens in self.encoded.splits.items()}
        self.others = datasets["train"]
        self.data = Data(datasets, self.transform)
        return self.data

    def transform(self, example: dict, rng: np.random.Generator) -> dict:
        """Arrays of one example; of several captions one is drawn.

        Returns:
          `ids` int32 [N] in [0, K), `text_ids` int32 [S], `text_mask` bool [S], and `null` bool: the caption is
          dropped, with probability `data.caption_dropout`. Where `data.code_noise` is a field, also `given_ids`:
          the ids, int32 [N], a fraction `data.code_noise` of them taken from one picture of the training set, at
          the same positions: of two mixed pictures the caption alone tells which one is meant. With random codes
          in their place this would be taming's pkeep (Esser et al. 2021).
        """
        arrays, ids, data = {"ids": example["ids"]}, example["ids"], self.config.data
        if "code_noise" in data:
            mixed = rng.random(len(ids)) < data.code_noise
            # Drawn whatever the noise is: which captions are dropped does not depend on it.
            seed = rng.integers(0, self.model.codebook_size, len(ids))
            arrays["given_ids"] = ids
            if data.code_noise:
                other = np.random.default_rng(seed).integers(len(self.others))
                arrays["given_ids"] = np.where(mixed, self.others[int(other)]["ids"], ids)
        captions = example["captions"]  # drawn only where there is a choice
        caption = captions[rng.integers(len(captions)) if len(captions) > 1 else 0]
        text_ids, text_mask, _ = self.reader.encode([caption])
        return {
            **arrays,
            "text_ids": text_ids[0],
            "text_mask": text_mask[0],
            "null": rng.random() < data.caption_dropout,
        }

    def warm_start(self, params: dict, variables: dict, key) -> tuple[dict, dict]:
        """Embeddings of image tokens from the tokenizer's codebook, where `config.init_from_tokenizer` says so."""
        if self.config.init_from_tokenizer:
            params = self.from_tokenizer(params, self.tokenizer.codebook, self.tokenizer.position_features, key)
        return params, variables

    def from_run(self, params: dict, variables: dict) -> tuple[dict, dict]:
        """See `Task.from_run`; tables of image tokens start anew where the run has another image tokenizer."""
        digest = self.tokenizer.digest
        tables = init_from.tables_of(self.config, self.model, params, self.text_tokenizer, digest)
        return init_from.put(self.config.init_from, params, variables, tables)

    def from_tokenizer(self, params: dict, codebook: np.ndarray, positions: np.ndarray, key) -> dict:
        """Params that begin with what the tokenizer knows of its tokens.

        Args:
          params: freshly initialised.
          codebook: [K, C], the tokenizer's codes.
          positions: [N, F], features of the positions at which its tokens stand.
          key: source of random projections.
        """
        raise NotImplementedError

    def evaluators(self) -> dict[str, Evaluator]:
        """Scores of the validation split and pictures of captions, and the data set's judge if the config asks."""
        from t2i_jax.evals import report, translation

        sampler = sampling.make(self.config.sampling)

        def predict(params, batch):
            inputs = (batch[name] for name in ("text_ids", "text_mask", "ids"))
            return self.model.apply({"params": params}, *inputs)

        score = translation.evaluator(
            self.data.splits["validation"],
            self.encoded.baselines,
            self.data.transform,
            predict=predict,
            sample=partial(self.sample, sampler),
            batch_size=BATCH,  # logits of 8,192 codes at 1,024 positions: 2 GB
            temperature=sampler.temperature,
        )

        def opened(params):
            return self.pipeline.of_parts(self.config, self.model, params, self.tokenizer, self.reader)

        def evaluate(params, variables):
            return score(params), {"samples": self.show(opened(params))}

        def judge(params, variables):
            pipe = opened(params)
            share, (low, high) = report.judge_of(self.config.data.name).rater(pipe, JUDGED)(pipe.sampling)
            return {"judged": share, "judged_low": low, "judged_high": high}, {}

        found = {"translation": Evaluator(self.config.eval_every, evaluate)}
        if self.config.judge_every:
            found["judge"] = Evaluator(self.config.judge_every, judge)
        return found

    def show(self, pipe) -> np.ndarray:
        """Two images over each of `config.shown_captions`, or of captions of the data; uint8 [H, W, 3]."""
        captions = self.config.shown_captions or self.captions_to_show()
        return np.asarray(labelled_grid(pipe(captions, num_images=2, seed=self.config.seed), captions))

    def captions_to_show(self) -> list[str]:
        """The first captions of the training split, each once, as much of them as the text tokenizer reads."""
        from t2i_jax.data.text import LOOKED_AT

        found, empty = {}, self.reader.lengths([""])[0]
        for caption in islice(self.encoded.splits["train"].captions(), LOOKED_AT):
            shown = shorten(caption, self.reader)
            if self.reader.lengths([shown])[0] > empty:
                found[shown] = True
            if len(found) == SHOWN:
                break
        return list(found)

    def sample(self, sampler, params: dict, batch: dict, keys):
        """Token ids [B, N] of the captions of a batch, by a sampler of `sampling/`."""
        condition = batch["text_ids"], batch["text_mask"], np.zeros(len(batch["text_ids"]), bool)
        return sampler.draw(self.model, params, condition, keys, self.tokenizer.valid_ids)

    def recall(self, params: dict, variables: dict, batch: dict, key) -> float:
        """The fraction of a batch's tokens that greedy sampling gives back, in [0, 1]."""
        del variables
        greedy = sampling.kind(self.config.sampling.name)(temperature=0)
        ids = self.sample(greedy, params, batch, jax.random.split(key, len(batch["ids"])))
        return float(np.mean(np.asarray(ids) == batch["ids"]))

    @property
    def overfit(self) -> Overfit:
        """See `Task.overfit`."""
        return Overfit(
            "captions",
            "text_ids",
            self.recall,
            enough=0.99,
            wanted="99%",
            shown="{:.1%} of the tokens of {} captions came back",
            suspects="a model too small for its tokens, then tokens that do not belong to their captions",
        )


def shorten(caption: str, reader) -> str:
    """A caption without the words, or of a single one the letters, at its end that a text tokenizer would cut."""
    while caption and reader.lengths([caption])[0] > reader.text_len:
        caption = caption.rpartition(" ")[0] or caption[: len(caption) // 2]
    return caption


def project(rows: np.ndarray, width: int, key) -> jax.Array:
    """One random projection of rows [M, C] to [M, width], values about as large: rows that are alike stay so."""
    return rows @ jax.random.normal(key, (rows.shape[1], width)) / rows.shape[1] ** 0.5
