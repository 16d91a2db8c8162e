"""Passes of the model and seconds a picture for several windows of the autoregressive sampler: a JSON line a case.

    python benchmarks/window.py --run runs/quickstart/translator

Cases are a run, at its own settings, and models of random weights at temperature 1:

  initial    a translator of 1,024 tokens as training starts: its ids hardly depend on those before them
  sensitive  the same with weights so large that they do
  pixelcnn   the prior of configs/prior.py:digits, which runs over its whole grid in every pass

One picture at a time; of each case and guidance as many pictures as `--repeats`, by every window in turn, so that
other work on the machine falls on all windows alike. Passes and seconds are medians; beside the wall time stands
the CPU time of all threads. `differ` counts the pictures that are not those of window 1.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from t2i_jax import models, runs, sampling
from t2i_jax.data.text import CaptionReader
from t2i_jax.models.pixelcnn import Model as PixelCNN
from t2i_jax.models.translator import Model as Translator
from t2i_jax.pipelines import Tokenizer
from t2i_jax.random import stream
from t2i_jax.sampling.autoregressive import Autoregressive
from t2i_jax.sampling.decoding import decode

WINDOWS = (1, 2, 4, 8, 16)
SCALES = (1.0, 1.5, 3.0)
WORDS, TEXT = 64, 12  # of the random models
SMALL = {"width": 64, "heads": 2, "mlp_width": 256, "layers": 2, "dropout": 0.0}


def of_run(folder: Path, count: int) -> tuple:
    """Model, parameters, sampler, valid ids, and the texts of `count` of the run's own captions."""
    config = runs.read_config(folder)
    reader = CaptionReader(folder / runs.TEXT_TOKENIZER, config.data.text_len)
    shown = config.shown_captions or ("a picture",)
    captions = [shown[i % len(shown)] for i in range(count)]
    text_ids, text_mask, _ = reader.encode_prompts(captions)
    params = jax.tree.map(jnp.asarray, runs.read_weights(folder)[0])
    valid = Tokenizer(runs.parent_folder(folder, "tokenizer")).valid_ids
    return models.build(config), params, sampling.make(config.sampling), valid, text_ids, text_mask


def translator() -> Translator:
    """A small one of 1,024 tokens out of 512."""
    encoder, decoder = FrozenDict(SMALL, max_positions=TEXT), FrozenDict(SMALL, positions=1024)
    return Translator(512, 1024, WORDS, TEXT, encoder, decoder)


def pixelcnn() -> PixelCNN:
    """As of `configs/prior.py:digits`, with a small encoder."""
    return PixelCNN(2048, 24, (6, 4), WORDS, TEXT, encoder=FrozenDict(SMALL, max_positions=TEXT))


def at_random(model, gain: float, count: int) -> tuple:
    """As `of_run`: a model whose kernels and embeddings are `gain` times those that training starts with."""
    text_ids = np.random.default_rng(0).integers(0, WORDS, (count, TEXT), np.int32)
    text_mask = np.ones(text_ids.shape, bool)
    ids = np.zeros((1, model.num_tokens), np.int32)
    params = jax.jit(model.init)(jax.random.key(0), text_ids[:1], text_mask[:1], ids)["params"]
    params = jax.tree.map_with_path(lambda path, x: x if path[-1].key == "scale" else gain * x, params)
    return model, params, Autoregressive(), None, text_ids, text_mask


def measure(case: str, model, params, sampler, valid, text_ids, text_mask) -> None:
    """Print a line for every guidance and window."""
    count = len(text_ids)
    keys = jax.vmap(partial(jax.random.fold_in, stream(0, "sample")))(jnp.arange(count))
    for scale in SCALES:
        settings = dict(vars(sampler.replace(guidance_scale=scale)))
        del settings["window"], settings["weight_bits"]
        draw = partial(decode, model, params, settings=settings, valid=valid, guided=scale != 1)
        drawn = {window: [] for window in WINDOWS}
        for number in range(-1, count):  # the first compiles
            here = slice(max(number, 0), max(number, 0) + 1)
            condition = text_ids[here], text_mask[here], np.zeros(1, bool)
            for window in WINDOWS:
                wall, cpu = time.perf_counter(), time.process_time()
                ids, passes, *_ = jax.block_until_ready(draw(condition, keys[here], window=window))
                seconds = time.perf_counter() - wall, time.process_time() - cpu
                if number >= 0:
                    drawn[window].append((np.asarray(ids), int(passes), *seconds))
        for window in WINDOWS:
            ids, *numbers = zip(*drawn[window], strict=True)
            passes, wall, cpu = (float(np.median(values)) for values in numbers)
            line = {"case": case, "tokens": model.num_tokens, "guidance": scale, "window": window, "passes": passes}
            line |= {"seconds": round(wall, 4), "cpu_seconds": round(cpu, 4), "pictures": count}
            line["differ"] = sum(not np.array_equal(a[0], b) for a, b in zip(drawn[1], ids, strict=True))
            print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="folder of a translator; else random ones only")
    parser.add_argument("--repeats", type=int, default=5, help="pictures of each case (5)")
    arguments = parser.parse_args()
    if arguments.run:
        measure("run", *of_run(arguments.run, arguments.repeats))
    measure("initial", *at_random(translator(), 1.0, arguments.repeats))
    measure("sensitive", *at_random(translator(), 8.0, arguments.repeats))
    measure("pixelcnn", *at_random(pixelcnn(), 1.0, arguments.repeats))


if __name__ == "__main__":
    main()
