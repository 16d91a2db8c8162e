"""Tokens of the toy COCO: every caption is kept, and each epoch draws one anew."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
from coco import GOOD, NAME, FakeTokenizer, captions_of, write_coco

from t2i_jax import encode, tasks
from t2i_jax.config import load_config
from t2i_jax.data import pipeline


@pytest.fixture
def manual(tmp_path):
    """A toy COCO where the builder looks for the official one."""
    folder = tmp_path / "downloads" / "manual"
    write_coco(folder)
    return folder


@pytest.fixture
def task(manual, tmp_path):
    """A translator's, prepared on the toy."""
    config = load_config("translator:smoke")
    config.data.update(
        {"name": NAME, "image_size": 16, "data_dir": str(tmp_path), "caption_dropout": 0.0, "code_noise": 0.0}
    )
    config.model.codebook_size, config.model.num_tokens = 64, 4
    config.parents.tokenizer.run = str(tmp_path / "tokenizer")
    made = tasks.make(config)
    for folder in ("tokenizer", "run"):
        (tmp_path / folder).mkdir()
    made.prepare(tmp_path / "run", {"tokenizer": FakeTokenizer()})
    return made


@pytest.fixture
def tokens(task, tmp_path):
    """Its tokens, made before."""
    return encode.encode(task.config, FakeTokenizer(), tmp_path / "tokenizer")


def test_tokens_keep_every_caption(tokens):
    rows = list(tokens.splits["train"].dataset())
    assert [row["ids"].shape for row in rows] == [(4,)] * len(GOOD)
    assert [row["captions"] for row in rows] == [
        [words.decode() for words in captions_of(number)] for number in GOOD
    ]


def test_each_epoch_draws_a_caption_anew(task):
    stream = partial(pipeline.train_stream, task.data.splits["train"], task.data.transform, batch_size=1)

    def drawn(batches, count):
        """(picture, caption) of each example."""
        return [(tuple(b["ids"][0].tolist()), tuple(b["text_ids"][0].tolist())) for b in islice(batches, count)]

    epochs = [dict(drawn(batches, len(GOOD))) for batches in [stream(seed=0)] for _ in range(12)]
    assert all(epoch.keys() == epochs[0].keys() for epoch in epochs)
    for picture in epochs[0]:
        assert len({epoch[picture] for epoch in epochs}) >= 3  # of five
    again, other = drawn(stream(seed=0), 20), drawn(stream(seed=1), 20)
    assert again == drawn(stream(seed=0), 20)
    assert again != other

    batches = stream(seed=0)
    list(islice(batches, 7))
    state = batches.get_state()
    resumed = stream(seed=0)
    resumed.set_state(state)
    assert drawn(resumed, 13) == again[7:]


def test_parts_of_a_split_have_tokens_of_their_own(task, tokens, tmp_path):
    task.config.data.train = "train[:2]"
    part = encode.encode(task.config, FakeTokenizer(), tmp_path / "tokenizer")
    folders = sorted(path.name for path in (tmp_path / "tokenizer" / "tokens").iterdir())
    assert folders == ["coco_captions_2017-tiny", "coco_captions_2017-tiny-train__2_"]
    assert (part.splits["train"].count, tokens.splits["train"].count) == (2, len(GOOD))


def test_one_caption_draws_nothing(task):
    """So what else is random about an example is the same as ever."""
    for captions, same in ((["picture"], True), (["picture", "words"], False)):
        rng, expected = np.random.default_rng(0), np.random.default_rng(0)
        task.transform({"ids": np.arange(4), "captions": captions}, rng)
        expected.random(4), expected.integers(0, 64, 4), expected.random()
        assert (rng.random() == expected.random()) == same
