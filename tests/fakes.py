"""Batches and parameters from numpy seeds, nothing drawn by jax; and a translator that answers at once."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np

from t2i_jax.config import known_configs
from t2i_jax.sampling.autoregressive import Autoregressive

CONFIGS = Path(__file__).parents[1] / "configs"
SETTINGS = Autoregressive(temperature=0.5, guidance_scale=1.5)
SMOKE = [Path(known).stem for known in known_configs(CONFIGS) if known.endswith(":smoke")]


def fake_batch(task, size: int, seed: int = 0) -> dict:
    """What a task hands to its model, made up: arrays [size, ...] of the shapes that it names."""
    rng, spec, model = np.random.default_rng(seed), task.batch_spec(size), task.config.model
    batch = {}
    for name, x in spec.items():
        if name == "given_ids":
            batch[name] = batch["ids"]
        elif name == "text_mask":
            batch[name] = np.arange(x.shape[1]) < rng.integers(1, x.shape[1] + 1, (size, 1))
        elif name == "null":
            batch[name] = np.arange(size) % 4 == 3
        elif x.dtype == np.int32:
            rows = {"ids": "codebook_size", "text_ids": "text_vocab_size"}[name]
            batch[name] = rng.integers(0, model[rows], x.shape, np.int32)
        else:
            batch[name] = rng.random(x.shape, np.float32)
    return batch


def fake_variables(shapes: dict) -> dict:
    """Values for a model's variables: small normal ones, norms around 1, every code in use alike."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        name = path[-1].key
        if name == "cluster_size":
            return np.full(leaf.shape, 1 / leaf.size, leaf.dtype)
        values = 0.1 * rng.standard_normal(leaf.shape) + (name == "scale")
        return np.asarray(values / len(values) if name == "embedding_sum" else values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@dataclasses.dataclass
class FakeTokenizer:
    """Answers as `t2i_jax.pipelines.Tokenizer` does: a token a picture, its mean grey level."""

    num_tokens: int = 1
    codebook_size: int = 256
    channels: int = 3

    @property
    def shape(self):
        return 32, 32, self.channels

    def at_size(self, image_size):
        return self

    def tokenize(self, images):
        return images.mean(axis=(1, 2, 3))[:, None].astype(np.int32)

    def detokenize(self, ids):
        return np.broadcast_to(ids[..., None, None] / 255, (len(ids), 32, 32, self.channels)).astype(np.float32)


@dataclasses.dataclass
class FakeTranslator:
    """Answers as `t2i_jax.pipelines.Translator` does; every picture has one grey level of its own.

    Attributes:
      calls: prompts, number of pictures, seed and settings of each.
      stop_at: the call at which Ctrl-C comes.
    """

    sampling: Autoregressive = SETTINGS
    digest: str = "c0ffee"
    tokenizer: "FakeTokenizer" = dataclasses.field(default_factory=lambda: FakeTokenizer())
    calls: list = dataclasses.field(default_factory=list)
    stop_at: int | None = None

    def sampler(self, **settings):
        sampler = self.sampling.replace(**settings)
        sampler.check_fits(self.tokenizer)
        return sampler

    def check(self, prompts):
        return list(prompts)

    def unknown_words(self, prompts):
        return [word for prompt in prompts for word in prompt.split() if "x" in word]

    def stream(self, prompt, num_images=1, seed=0, *, parts=8, **settings):
        images = self([prompt], num_images, seed, **settings)[0]
        for part in range(1, parts + 1):
            yield part / parts, images if part == parts else images // 2

    def insight(self, prompt, num_images=1, seed=0, **settings):
        images, words = self([prompt], num_images, seed, **settings)[0], prompt.split()
        entropy = np.tile(np.float32([0, 1, 2, 3]), (num_images, 1))
        attention = np.full((num_images, 4, len(words)), 1 / len(words), np.float32)
        cells = [(y, x, y + 16, x + 16) for y in (0, 16) for x in (0, 16)]
        return SimpleNamespace(images=images, entropy=entropy, attention=attention, words=words, cells=cells)

    def __call__(self, prompts, num_images=1, seed=0, **settings):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append((list(prompts), num_images, seed, settings))
        first = settings.get("first", 0)
        levels = [[sum(f"{prompt} {seed}".encode()) + first + i for i in range(num_images)] for prompt in prompts]
        levels = (np.array(levels) % 256).astype(np.uint8)
        return np.broadcast_to(levels[..., None, None, None], (*levels.shape, 32, 32, 3)).copy()
