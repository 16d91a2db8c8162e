"""Examples a second that the host can make, on all its cores: a JSON line a case.

  python benchmarks/input.py

tokens  batches of 64 of `translator:coco` from tokens on the disk (1,024 of 8,192 codes, captions of 11 words):
        read, shuffled, caption tokenized
jpeg    photographs of 480 x 640 pixels (noise that was blurred, quality 90), decoded, cropped and scaled to 256
"""

import argparse
import io
import itertools
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import grain
import numpy as np
from PIL import Image, ImageFilter

from benchmarks import common
from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.data import pipeline, text, vocabularies
from t2i_jax.data.images import decode, square
from t2i_jax.data.token_cache import Tokens, write_tokens


def rate(stream, batch: int, batches: int) -> float:
    """Examples a second, of a stream whose first batches are there."""
    next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batch * batches / (time.perf_counter() - start)


def tokens(count: int, batches: int) -> None:
    config, rng = load_config("translator:coco"), np.random.default_rng(0)
    words = [f"word{number}" for number in range(2000)]
    captions = [[" ".join(rng.choice(words, 11)) for _ in range(5)] for _ in range(count)]
    task = tasks.make(config)
    with tempfile.TemporaryDirectory() as folder:
        ids = rng.integers(0, config.model.codebook_size, (count, config.model.num_tokens), np.int32)
        write_tokens(Path(folder) / "tokens", zip(ids, captions, strict=True), tokenizer="", data="")
        path = Path(folder) / "pieces"
        vocabularies.write_word_pieces(path, vocabularies.build_word_pieces(itertools.chain(*captions), 4000))
        task.reader = text.CaptionReader(path, config.data.text_len)
        dataset = Tokens(Path(folder) / "tokens", tokenizer="", data="").dataset()
        stream = pipeline.train_stream(dataset, task.transform, batch_size=64, seed=0)
        found = [rate(stream, 64, batches) for _ in range(5)]
    common.line("tokens", examples_per_second=float(np.median(found)), repeat=len(found))


def jpegs(count: int, batches: int) -> None:
    rng, contents = np.random.default_rng(0), []
    for _ in range(count):
        image = Image.fromarray(rng.integers(0, 256, (480, 640, 3), np.uint8)).filter(ImageFilter.GaussianBlur(3))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())

    def transform(content, rng):
        return {"image": square(decode(content), 256)}

    stream = pipeline.train_stream(grain.MapDataset.source(contents), transform, batch_size=64, seed=0)
    found = [rate(stream, 64, batches) for _ in range(5)]
    common.line(
        "jpeg",
        examples_per_second=float(np.median(found)),
        repeat=len(found),
        kilobytes=float(np.mean([len(content) for content in contents]) / 1e3),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000, help="examples on the disk")
    parser.add_argument("--batches", type=int, default=50, help="of each of five measurements")
    arguments = parser.parse_args()
    tokens(arguments.count, arguments.batches)
    jpegs(min(arguments.count, 200), arguments.batches // 5)


if __name__ == "__main__":
    main()
