"""Training a translator: captions -> image tokens."""

from pathlib import Path

from t2i_jax.data import text, token_cache
from t2i_jax.data.pictures import picture_grid
from t2i_jax.evals import translation
from t2i_jax.generate import Translator
from t2i_jax.loop import run as runs
from t2i_jax.loop.state import stream
from t2i_jax.stages import Stage, Train
from t2i_jax.stages.tokens import copy_tokenizer, open_tokens


def prepare(config, folder, task, model, *, train_first: Train, accept: bool) -> Stage:
    """Data, start and evaluation, after the tokenizer where that is not finished."""
    tokenizer, tokens_dir = open_tokens(config, folder, train_first=train_first, accept=accept)
    started = (folder / "checkpoints").exists()
    if not (started and (folder / runs.TEXT_TOKENIZER).exists()):
        pieces = task.word_pieces(tokens_dir, tokenizer.digest, config.model.text_vocab_size)
        text.write_word_pieces(folder / runs.TEXT_TOKENIZER, pieces)
    reader = text.CaptionReader(folder / runs.TEXT_TOKENIZER, config.data.text_len)
    splits, transform = task.inputs(config, tokens_dir, tokenizer.digest, reader)
    copy_tokenizer(Path(config.tokenizer_run), folder)

    def start(params, variables):
        if config.tokenizer_start:
            params = task.start(model, params, tokenizer.codebook, tokenizer.places, stream(config.seed, "start"))
        return params, variables

    settings = dict(config.sampling)
    guided = settings["guidance_scale"] != 1

    def sample(params, batch, keys):
        return task.sample(model, params, batch["text_ids"], batch["text_mask"], keys, settings, guided=guided)

    score = translation.TranslationEvaluator(
        splits["validation"],
        {split: token_cache.read_tokens(tokens_dir / split, tokenizer.digest)[0] for split in splits},
        transform,
        predict=lambda params, batch: task.predict(model, params, {}, batch),
        sample=sample,
        codebook_size=model.codebook_size,
        temperature=config.sampling.temperature,
    )

    def evaluate(params, variables):
        pipe = Translator.of_parts(config, model, params, tokenizer, reader)
        images = pipe(config.shown_captions, num_images=2, seed=config.seed)
        return score(params), {"samples": picture_grid(images.reshape(-1, *images.shape[2:]), columns=8)}

    return Stage(splits, transform, start, evaluate, tokenizer.digest)
