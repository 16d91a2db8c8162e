"""Batches: seeded, shared over hosts, resumable, and complete."""

from itertools import islice

import grain
import numpy as np
import pytest

from t2i_jax.data import pipeline

COUNT = 12


def dataset(count=COUNT):
    return grain.MapDataset.source([{"number": number} for number in range(count)])


def transform(example, rng):
    return {"number": np.int32(example["number"]), "draw": rng.random()}


def stream(seed=0, batch_size=4, **hosts):
    return pipeline.train_stream(dataset(), transform, batch_size=batch_size, seed=seed, **hosts)


def rows(batches, count):
    """(number, draw) of the next examples."""
    taken = list(islice(batches, count))
    return [pair for batch in taken for pair in zip(batch["number"].tolist(), batch["draw"].tolist(), strict=True)]


def numbers(pairs):
    return [number for number, _ in pairs]


def test_batches_depend_on_the_seed_alone():
    first, again, other = rows(stream(), 9), rows(stream(), 9), rows(stream(seed=1), 9)
    assert first == again
    assert numbers(first) != numbers(other)
    assert not {draw for _, draw in first} & {draw for _, draw in other}


def test_shapes():
    batch = next(stream())
    assert {name: value.shape for name, value in batch.items()} == {"number": (4,), "draw": (4,)}
    assert batch["number"].dtype == np.int32


def test_each_epoch_has_every_example_once_in_another_order():
    pairs = rows(stream(), 9)
    epochs = [tuple(numbers(pairs[start : start + COUNT])) for start in range(0, len(pairs), COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({*epochs, tuple(range(COUNT))}) == 4
    assert len({draw for _, draw in pairs}) == len(pairs)  # and other draws


def test_a_batch_may_lie_across_epochs():
    seen = numbers(rows(stream(batch_size=5), 12))
    assert [seen.count(number) for number in range(COUNT)] == [5] * COUNT


def test_a_restored_stream_continues_as_if_it_had_never_stopped():
    batches = stream(batch_size=5)
    rows(batches, 4)
    state = batches.get_state()
    expected = rows(batches, 6)
    restored = stream(batch_size=5)
    rows(restored, 1)
    restored.set_state(state)
    assert rows(restored, 6) == expected


def test_hosts_share_the_examples_of_one():
    """Each takes its half of every batch."""
    whole = numbers(rows(stream(), 6))
    hosts = [numbers(rows(stream(host=host, hosts=2), 6)) for host in range(2)]
    assert [next(stream(host=host, hosts=2))["number"].shape for host in range(2)] == [(2,), (2,)]
    for start in range(0, len(whole), 4):
        shares = [set(share[start // 2 : start // 2 + 2]) for share in hosts]
        assert not shares[0] & shares[1]
        assert shares[0] | shares[1] == set(whole[start : start + 4])
    for epoch in range(2):
        first, second = (set(share[6 * epoch : 6 * epoch + 6]) for share in hosts)
        assert not first & second
        assert first | second == set(range(COUNT))


@pytest.mark.parametrize("batch_size", [2, 6])
def test_draws_do_not_depend_on_the_batch_size(batch_size):
    assert rows(stream(batch_size=batch_size), 24 // batch_size) == rows(stream(), 6)


def test_draws_do_not_depend_on_the_number_of_hosts():
    whole = rows(stream(), 6)
    hosts = [rows(stream(host=host, hosts=2), 6) for host in range(2)]
    assert sorted(hosts[0] + hosts[1]) == sorted(whole)


@pytest.mark.parametrize("batch_size", [1, 5, 12, 30])
def test_one_pass_covers_every_example_once_and_in_order(batch_size):
    seen, counts = [], []
    for batch, count in pipeline.one_pass(dataset(), transform, batch_size):
        assert batch["number"].shape == (batch_size,)
        assert set(batch["number"][count:].tolist()) <= {COUNT - 1}
        seen += batch["number"][:count].tolist()
        counts.append(count)
    assert seen == list(range(COUNT))
    assert counts == [batch_size] * (COUNT // batch_size) + [COUNT % batch_size] * (COUNT % batch_size > 0)


def test_one_pass_draws_the_same_each_time():
    first, again = (
        [batch["draw"].tolist() for batch, _ in pipeline.one_pass(dataset(), transform, 5)] for _ in range(2)
    )
    assert first == again
