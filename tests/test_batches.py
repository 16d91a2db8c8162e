"""Rows in batches: split over the devices on which parameters lie, with the results of a single one.

Run as a script with a smoke run's folders, it samples, ranks, tokenizes and scores, and writes what came of it.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from processes import finish, on_two_hosts, start

from t2i_jax import hosts
from t2i_jax.pipelines import batches

PROMPTS = ["a red seven", "a blue one", "two green threes"]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_any_number_of_rows_comes_back_in_order(count, monkeypatch):
    monkeypatch.setattr(batches, "SIZES", (2, 4))
    monkeypatch.setattr(batches, "BATCH", 4)
    sizes = []

    def apply(a, b):
        sizes.append(len(a))
        return a * 2 + b[:, None]

    a, b = np.arange(2.0 * count).reshape(count, 2), 100 * np.arange(count)
    np.testing.assert_array_equal(batches.in_batches(apply, a, b), a * 2 + b[:, None])
    assert sizes == {0: [1], 1: [2], 3: [4], 4: [4], 9: [4, 4, 2]}[count]


@pytest.mark.parametrize("num_images", [1, 4])
def test_one_three_and_five_prompts_share_programs(smoke_run, num_images):
    import t2i_jax

    pipe, sizes = t2i_jax.load(smoke_run.translator), []
    sampler = pipe.sampling.replace(guidance_scale=1.0)  # one row an image

    def draw(model, params, condition, keys, valid, rows=None):
        sizes.append((len(condition[0]), len(keys)))
        return np.zeros((len(keys), pipe.tokenizer.num_tokens), np.int32)

    object.__setattr__(sampler, "draw", draw)
    for count in (1, 3, 5):
        prompts = (PROMPTS * 2)[:count] * num_images
        pipe.draw_ids(prompts, np.arange(len(prompts)), 0, sampler)
    # Of prompts, each of which the encoder reads once, and of images.
    assert sizes == {1: [(1, 1), (8, 8), (8, 8)], 4: [(1, 8), (8, 32), (8, 32)]}[num_images]


def test_on_one_device_nothing_is_moved():
    params, rows = {"w": jnp.ones(3)}, {"a": np.ones((3, 2))}
    assert batches.row_sharding(params) is None
    assert batches.split_rows(rows, params) is rows
    assert batches.replicate(params, params) is params
    alone = Mesh(np.array(jax.devices()[:1]), ("data",))
    assert batches.row_sharding(jax.device_put(params, NamedSharding(alone, PartitionSpec()))) is None


def on_all_devices(params):
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    return jax.device_put(params, NamedSharding(mesh, PartitionSpec()))


def work(translator: str, tokenizer: str) -> dict:
    """What a translator does with its parameters replicated over all devices, and the shards that it computed."""
    import t2i_jax
    from t2i_jax.evals.translation import evaluator
    from t2i_jax.pipelines import Translator
    from t2i_jax.sampling.decoding import decode

    alone, shards = t2i_jax.load(translator), {}
    params = on_all_devices(alone._params) if jax.device_count() > 1 else alone._params
    fetch = batches.fetch

    def watched(array):
        assert not array.sharding.is_fully_replicated or jax.device_count() == 1
        shards.setdefault(str(array.ndim), []).append([len(array), len(array.addressable_shards[0].data)])
        return fetch(array)

    batches.fetch = watched
    pipe = Translator.of_parts(alone.config, alone._model, params, t2i_jax.load(tokenizer), alone._reader)
    images = pipe(PROMPTS, num_images=3, seed=1, temperature=1.0, guidance_scale=2.0)
    ids = pipe.tokenizer.tokenize(images.reshape(-1, 32, 32, 3))
    ratios = pipe.likelihood_ratios(PROMPTS, ids[:3])
    split, captions = [{"ids": row} for row in ids[:5]], alone._reader.encode_prompts(PROMPTS[:1])

    def transform(example, rng):
        return {**example, "text_ids": captions[0][0], "text_mask": captions[1][0]}

    def predict(params, batch):
        inputs = batch["text_ids"], batch["text_mask"], batch["ids"]
        return pipe._model.apply({"params": params}, *inputs)

    def sample(params, batch, keys):
        condition = batch["text_ids"], batch["text_mask"], np.zeros(len(batch["ids"]), bool)
        ids = pipe.sampling.draw(pipe._model, params, condition, keys, pipe.tokenizer.valid_ids)
        shards.setdefault("evaluator", []).append([len(ids), len(ids.addressable_shards[0].data)])
        return ids

    import grain

    evaluate = evaluator(
        grain.MapDataset.source(split), {"unigram_nats": 3.0, "bigram_nats": 2.0}, transform,
        predict=predict, sample=sample, batch_size=4, temperature=1.0,
    )  # fmt: skip
    scores = evaluate(params)
    rows = *alone._reader.encode_prompts(PROMPTS * 2)[:2], np.zeros(6, bool), np.zeros((6, 2), np.uint32)
    *condition, key_data = batches.split_rows(rows, params)
    settings = {name: value for name, value in vars(pipe.sampling).items() if name not in ("window", "weight_bits")}
    inputs = pipe._model, params, tuple(condition), jax.random.wrap_key_data(key_data), settings
    program = decode.lower(*inputs, guided=True).compile().as_text()
    found = {"images": images.tolist(), "ids": ids.tolist(), "ratios": ratios.tolist(), "scores": scores}
    return found | {"shards": shards, "exchanged": [name in program for name in ("all-gather", "all-to-all")]}


def work_of_one_of_two_processes(translator: str) -> bool:
    """Whether two processes of one device each give the images that each of them gives alone."""
    hosts.start()
    import t2i_jax
    from t2i_jax.pipelines import Translator

    alone = t2i_jax.load(translator)
    expected = alone(PROMPTS, num_images=2, seed=1, temperature=1.0, candidates=3)
    params = on_all_devices(alone._params)
    pipe = Translator.of_parts(alone.config, alone._model, params, alone.tokenizer, alone._reader)
    images = pipe(PROMPTS, num_images=2, seed=1, temperature=1.0, candidates=3)
    return jax.device_count() == 2 and jax.local_device_count() == 1 and bool((images == expected).all())


def results(ends):
    return [json.loads(out.splitlines()[-1]) for out, _ in ends]  # gloo speaks on stdout, too


@pytest.mark.slow
def test_two_devices_share_the_rows_and_give_the_results_of_one(smoke_run):
    runs = smoke_run.translator, smoke_run.tokenizer
    one, two = results(finish([start(__file__, "devices", *runs, devices=count) for count in (1, 2)]))
    for name in ("images", "ids"):
        np.testing.assert_array_equal(two[name], one[name])
    # A difference of two sums of about 100 nats, of which the float32 beside each is 0.8e-5 away.
    np.testing.assert_allclose(two["ratios"], one["ratios"], atol=3e-5)
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-5)
    assert two["exchanged"] == [False, False]  # each device reads and draws its own images
    shards = two["shards"]
    assert shards["evaluator"] == [[4, 2], [4, 2]]
    # Of 9 images, and of 3 captions that are ranked: padded to 32 and 8, half of them on each device.
    assert shards["2"] == [[32, 16], [32, 16]]  # ids that were sampled, and tokenized
    assert shards["4"] == [[32, 16]]  # pixels
    assert shards["1"] == [[8, 4]]  # ratios
    assert all(whole == part for pairs in one["shards"].values() for whole, part in pairs)


@pytest.mark.long
def test_two_processes_share_the_rows_and_give_the_images_of_one(smoke_run):
    assert results(on_two_hosts(__file__, "processes", smoke_run.translator)) == [True, True]


if __name__ == "__main__":
    jobs = {"devices": work, "processes": work_of_one_of_two_processes}
    print(json.dumps(jobs[sys.argv[1]](*sys.argv[2:])))
