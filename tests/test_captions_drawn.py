"""Which captions pictures are measured for: one of each picture, by the seed, or those of a file."""

import json

import lpips_files
import numpy as np
import pytest
from coco import GOOD, NAME, captions_of, write_coco

from t2i_jax import cli, runs
from t2i_jax.evals.metrics.sets import Drawn, Prompts, Split


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A toy COCO: five pictures with five captions each."""
    root = tmp_path_factory.mktemp("coco")
    write_coco(root / "downloads" / "manual")
    return {"name": NAME, "data_dir": str(root), "image_size": 16}


def test_captions_of_coco_are_one_a_picture_and_the_seeds(data):
    own = {number: [text.decode() for text in captions_of(number)] for number in GOOD}
    drawn = {seed: Split(data, "train", 5, seed) for seed in range(40)}
    for split in drawn.values():
        numbers = [split.dataset[int(row)]["image_id"] for row in split.rows]
        assert sorted(numbers) == list(GOOD)  # each picture once
        assert all(text in own[number] for number, text in zip(numbers, split.captions, strict=True))
    assert Split(data, "train", 5, 7).captions == drawn[7].captions
    assert len({tuple(split.captions) for split in drawn.values()}) > 30
    assert {text for split in drawn.values() for text in split.captions} == {
        text for texts in own.values() for text in texts
    }
    assert set(Split(data, "train", 3, 7).captions) < set(drawn[7].captions)


@pytest.fixture
def evaluate(tmp_path, smoke_run, data_dir, capsys):
    """The command of a run: `code, JSON or None, lines on stderr`."""
    (tmp_path / "alexnet").mkdir()
    runs.write_weights(tmp_path / "alexnet", lpips_files.weights_of("alexnet")[0], {}, 0)
    (tmp_path / "prompts.txt").write_text("a red seven\na blue one\n" * 4)

    def call(*argv, kind="translator"):
        given = ["--run", getattr(smoke_run, kind), "--features", tmp_path / "alexnet", "--metrics", "kid"]
        given += ["--prompts-file", tmp_path / "prompts.txt", "--out", tmp_path / "card.json", *argv]
        code = cli.main(["evaluate", *map(str, given)])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("t2i:")]
        found = tmp_path / "card.json"
        return code, json.loads(found.read_text()) if found.exists() else None, lines

    return call


def test_a_run_draws_for_captions_of_a_file(evaluate, tmp_path):
    code, card, _ = evaluate("-n", 6)
    assert code == 0
    assert (card["pictures"]["pictures"], card["pictures"]["made"]) == (6, "one for each caption")
    assert card["pictures"]["of"]["prompts"] == str(tmp_path / "prompts.txt")
    assert card["reference"]["data"] == "captioned_digits/tiny"


def test_each_line_has_random_numbers_of_its_own(smoke_run):
    """Unlike `t2i sample`, whose prompts share theirs: equal captions give different pictures."""
    import t2i_jax

    drawn = list(Drawn(t2i_jax.load(str(smoke_run.translator)), Prompts("a file", ["a red seven"] * 3), 0))
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_what_cannot_be_drawn_for_is_one_line(evaluate, tmp_path):
    for argv, kind, said in [
        (["-n", 9], "translator", "-n 9 is above the 8 prompts of"),
        ([], "tokenizer", "reads no captions, so none of --prompts-file"),
        (["--prompts-file", tmp_path / "none.txt"], "translator", "none.txt: No such file"),
    ]:
        code, card, lines = evaluate(*argv, kind=kind)
        assert (code, card, len(lines)) == (2, None, 1)
        assert said in lines[0]
    (tmp_path / "prompts.txt").write_text("a red seven " * 200)
    code, card, lines = evaluate()
    assert (code, card, len(lines)) == (2, None, 1)
