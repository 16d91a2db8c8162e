"""What every stage that learns to draw image tokens is handed: data, start, and scores of what it draws."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from t2i_jax import runs, sampling
from t2i_jax.data import text, token_cache
from t2i_jax.evals import translation
from t2i_jax.pictures import picture_grid
from t2i_jax.pipelines import Translator
from t2i_jax.pipelines.batches import BATCH
from t2i_jax.random import stream
from t2i_jax.stages import Stage, Train
from t2i_jax.stages.tokens import copy_tokenizer, open_tokens
from t2i_jax.tasks import tokens


def prepare_drawing(
    config,
    folder: Path,
    task,
    model,
    pipe: type[Translator],
    show: Callable[[Translator], np.ndarray],
    *,
    train_first: Train,
    accept: bool,
    vocabulary: Path | None = None,
) -> Stage:
    """Data, start and evaluation, after the tokenizer where that is not finished.

    Args:
      config: of the run.
      folder: of the run.
      task: module of tasks/.
      model: as `config.sampling` needs it.
      pipe: the class that opens such a run.
      show: from an opened run to pictures uint8 [n, H, W, C], drawn at every evaluation.
      train_first: trains the tokenizer.
      accept: take a tokenizer of another config.
      vocabulary: of a released BERT; None makes one of the captions.
    """
    tokenizer, tokens_dir = open_tokens(config, folder, train_first=train_first, accept=accept)
    started = (folder / "checkpoints").exists()
    if not (started and (folder / runs.TEXT_TOKENIZER).exists()):
        size = config.model.text_vocab_size
        if vocabulary is None:
            pieces = tokens.word_pieces(tokens_dir, tokenizer.digest, size)
        else:
            pieces = text.read_vocabulary(vocabulary, size)
        text.write_word_pieces(folder / runs.TEXT_TOKENIZER, pieces)
    reader = text.CaptionReader(folder / runs.TEXT_TOKENIZER, config.data.text_len)
    splits, transform = task.inputs(config, tokens_dir, tokenizer.digest, reader)
    copy_tokenizer(Path(config.tokenizer_run), folder)

    def start(params, variables):
        if config.tokenizer_start:
            params = task.start(
                model, params, tokenizer.codebook, tokenizer.position_features, stream(config.seed, "start")
            )
        return params, variables

    sampler = sampling.make(config.sampling)

    def sample(params, batch, keys):
        condition = batch["text_ids"], batch["text_mask"], np.zeros(len(batch["text_ids"]), bool)
        return sampler.draw(model, params, condition, keys, tokenizer.valid_ids)

    score = translation.TranslationEvaluator(
        splits["validation"],
        {split: token_cache.read_tokens(tokens_dir / split, tokenizer.digest)[0] for split in splits},
        transform,
        predict=lambda params, batch: task.predict(model, params, {}, batch),
        sample=sample,
        codebook_size=model.codebook_size,
        batch_size=BATCH,  # logits of 8,192 codes at 1,024 places: 2 GB
        temperature=sampler.temperature,
    )

    def evaluate(params, variables):
        images = show(pipe.of_parts(config, model, params, tokenizer, reader))
        return score(params), {"samples": picture_grid(images, columns=8)}

    return Stage(splits, transform, start, evaluate, tokenizer.digest)


def draw_captions(config, pipe: Translator) -> np.ndarray:
    """Two pictures of each of `config.shown_captions`, uint8 [n, H, W, C]."""
    images = pipe(config.shown_captions, num_images=2, seed=config.seed)
    return images.reshape(-1, *images.shape[2:])
