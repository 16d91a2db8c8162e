"""From a dataset of examples to batches: Grain datasets, seeded, sharded over hosts, resumable."""

from collections.abc import Iterator

import grain
import numpy as np


def train_stream(
    dataset: grain.MapDataset, transform, *, batch_size: int, seed: int, host: int = 0, hosts: int = 1
) -> grain.DatasetIterator:
    """Endless shuffled batches, whose position can be saved and restored with a checkpoint.

    Args:
      dataset: examples.
      transform: `(example, numpy Generator) -> example of arrays`. The generator depends on the seed, the
        epoch and the example alone, not on devices or workers.
      batch_size: examples a batch over all hosts; divisible by `hosts`.
      seed: of the shuffling (another order each epoch) and of the transform.
      host, hosts: this host and how many there are; each reads its part of every batch.

    Returns:
      A `grain.DatasetIterator` over dicts of arrays [B / hosts, ...].
    """
    examples = dataset.seed(seed).shuffle().repeat().random_map(transform)[host::hosts]
    batches = examples.batch(batch_size // hosts, drop_remainder=True)
    # Grain's own default would read 500 batches ahead.
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)))


def one_pass(dataset: grain.MapDataset, transform, batch_size: int) -> Iterator[tuple[dict, int]]:
    """Every example once and in order, in batches of one size.

    Args:
      dataset: examples.
      transform: `(example, numpy Generator) -> example of arrays`.
      batch_size: B.

    Yields:
      A dict of arrays [B, ...] and how many of its leading rows count; in the last batch the rest repeats
      the last example.
    """
    count = len(dataset)
    rng = np.random.default_rng(0)
    for start in range(0, count, batch_size):
        rows = [transform(dataset[min(i, count - 1)], rng) for i in range(start, start + batch_size)]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        yield batch, min(batch_size, count - start)
