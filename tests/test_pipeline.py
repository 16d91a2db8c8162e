"""Batches: seeded, shared over hosts, resumable, and complete."""

import shutil
from itertools import islice
from pathlib import Path

import grain
import numpy as np
import pytest

from t2i_jax.data import pipeline
from t2i_jax.errors import UserError

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


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    pipeline.open_split("captioned_digits/tiny", folder, "train")
    return folder


def test_a_split_is_prepared_once_and_then_read(data_dir, capsys):
    for split, count in (("train", 512), ("validation", 64), ("compositions", 64)):
        opened = pipeline.open_split("captioned_digits/tiny", data_dir, split)
        assert len(opened) == count
    assert "preparing" not in capsys.readouterr().err
    example = opened[0]
    assert (example["image"].shape, example["image"].dtype) == ((32, 32, 3), np.uint8)
    assert isinstance(example["caption"], bytes)


@pytest.mark.parametrize(
    ("name", "split", "parts"),
    [
        ("no_such_set", "train", ["data set 'no_such_set' is unknown", "t2i_jax/data"]),
        ("captioned_digits/huge", "train", ["no configuration 'huge'; it has coarse, fine, tiny"]),
        (
            "captioned_digits/tiny",
            "test",
            ["no split 'test' with", "it has train, validation, compositions (512, 64, 64 pictures)"],
        ),
    ],
)
def test_what_does_not_exist(data_dir, name, split, parts):
    with pytest.raises(UserError) as error:
        pipeline.open_split(name, data_dir, split)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def unsealed(data_dir, tmp_path):
    """A prepared set that has lost its digests."""
    shutil.copytree(data_dir, tmp_path / "data")
    folder = tmp_path / "data" / "captioned_digits" / "tiny" / "1.1.0"
    (folder / "digests.json").unlink()
    return folder


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("dataset_info.json", flip),
        ("dataset_info.json", Path.unlink),
        ("captioned_digits-train.array_record-00000-of-00001", flip),
        ("captioned_digits-train.array_record-00000-of-00001", Path.unlink),
    ],
)
def test_a_damaged_set_without_digests_is_not_sealed_as_good(unsealed, name, damage):
    damage(unsealed / name)
    with pytest.raises(UserError, match=r"captioned_digits/tiny.*; delete .*tiny to prepare it again") as error:
        pipeline.open_split("captioned_digits/tiny", str(unsealed.parents[2]), "train")
    assert "\n" not in str(error.value)
    assert not (unsealed / "digests.json").exists()


def test_a_whole_set_without_digests_is_read_and_sealed(unsealed, capsys):
    (unsealed / "digests.json.partial").write_text("{")  # a kill inside sealing
    for _ in range(2):
        assert len(pipeline.open_split("captioned_digits/tiny", str(unsealed.parents[2]), "train")) == 512
    assert capsys.readouterr().err.count("warning: ") == 1
