"""A measurement that was stopped goes on: the same numbers, bit for bit, and nothing twice."""

import json
import os
import subprocess
import sys

import lpips_files
import numpy as np
import pytest
from PIL import Image

from t2i_jax import cli, runs
from t2i_jax.evals.metrics import features
from t2i_jax.evals.metrics.features import BATCH
from t2i_jax.evals.metrics.parts import Parts

KILLED = """
import os, signal, sys
from t2i_jax import cli
from t2i_jax.evals.metrics.parts import Parts
write = Parts.write
def dying(self, number, found):
    write(self, number, found)
    if self._folder.name == "pictures":
        os.kill(os.getpid(), signal.SIGKILL)
Parts.write = dying
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """AlexNet with random weights, and 70 pictures: three batches."""
    root = tmp_path_factory.mktemp("resumed")
    (root / "alexnet").mkdir()
    runs.write_weights(root / "alexnet", lpips_files.weights_of("alexnet")[0], {}, 0)
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(70):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / "images" / f"{number:02}.png")
    return root


@pytest.fixture
def measure(world, tmp_path, monkeypatch, capsys):
    """The command: its exit code, and the JSON's metrics. `stop_at`: after so many batches; `batches`: computed."""

    def counted(self, images):
        if call.batches == call.stop_at:
            raise KeyboardInterrupt
        call.batches += 1
        return compute(self, images)

    def call(*argv, out="card.json", stop_at=None):
        call.batches, call.stop_at = 0, stop_at
        given = ["evaluate", "--features", world / "alexnet", "--metrics", "kid,pr", "--out", tmp_path / out]
        code = cli.main([str(word) for word in (*given, *argv)])
        call.error = capsys.readouterr().err
        path = tmp_path / out
        return code, json.loads(path.read_text())["metrics"] if path.exists() else None

    compute = features.Extractor.__call__
    monkeypatch.setattr(features.Extractor, "__call__", counted)
    call.folders = ["--images", world / "images", "--reference", world / "images"]
    return call


def test_what_was_interrupted_goes_on(measure, tmp_path):
    """After four batches of six: all of the reference, one of the pictures."""
    whole = measure(*measure.folders, out="whole.json")
    assert (measure.batches, whole[0]) == (6, 0)
    assert measure(*measure.folders, stop_at=4) == (130, None)
    assert sorted(path.name for path in (tmp_path / "card.json.parts").rglob("0*")) == [
        "00000000", "00000000", "00000001", "00000002"
    ]  # fmt: skip
    own = tmp_path / "whole.json.parts" / "pictures" / "mine.txt"  # not ours, wherever it lies
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert measure(*measure.folders) == whole == measure(*measure.folders, out="whole.json")
    assert measure.batches == 6
    assert own.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "whole.json", "whole.json.parts"]


@pytest.mark.parametrize("change", ["a picture", "the number", "the network"])
def test_parts_of_anything_else_are_none(measure, world, tmp_path, change, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in (world / "images").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    argv = ["--images", folder, "--reference", world / "images"]
    assert measure(*argv, stop_at=5)[0] == 130
    if change == "a picture":
        (folder / "69.png").write_bytes((folder / "68.png").read_bytes())
    elif change == "the number":
        argv += ["-n", 69]
    else:
        about = features.Extractor.about.fget
        monkeypatch.setattr(features.Extractor, "about", property(lambda self: about(self) | {"digest": "other"}))
    again = measure(*argv)
    assert measure.batches == (6 if change == "the network" else 3)  # the reference is the same
    assert again == measure(*argv, out="whole.json")


@pytest.mark.parametrize("damage", [lambda x: x[:-1], lambda x: b"", lambda x: x[:-1] + bytes([x[-1] ^ 1])])
def test_a_damaged_part_is_computed_again(measure, tmp_path, damage):
    assert measure(*measure.folders, stop_at=5)[0] == 130
    path = tmp_path / "card.json.parts" / "pictures" / "00000001"
    path.write_bytes(damage(path.read_bytes()))
    assert measure(*measure.folders) == measure(*measure.folders, out="whole.json")


def test_a_part_stands_in_its_own_place_alone(tmp_path):
    parts = Parts(tmp_path / "parts", {"of": "these"})
    for number in range(3):
        parts.write(number, np.full((2, 3), number, np.float32))
    assert [found[0, 0] for found in parts.read()] == [0, 1, 2]
    assert not list(Parts(tmp_path / "parts", {"of": "those"}).read())
    (tmp_path / "parts" / "00000002").replace(tmp_path / "parts" / "00000001")
    assert len(list(parts.read())) == 1


def test_a_picture_of_another_size_is_found_by_whoever_goes_on(measure, world, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, path in enumerate(sorted((world / "images").iterdir())):
        with Image.open(path) as image:
            image.resize((32, 32) if number < BATCH else (40, 40)).save(folder / path.name)
    argv = ["--images", folder, "--reference", world / "images"]
    for _ in range(2):
        assert measure(*argv) == (2, None)
        assert "has 40 x 40 pixels, others before it 32 x 32" in measure.error


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["translator", "tokenizer"])
def test_a_run_is_killed_while_it_draws(measure, smoke_run, world, tmp_path, kind, data_dir):
    """After 32 of the 64 pictures that are drawn together."""
    argv = ["--run", str(getattr(smoke_run, kind)), "-n", "70", "--split", "train", "--reference", world / "images"]
    given = ["evaluate", "--features", world / "alexnet", "--metrics", "kid,pr", "--out", tmp_path / "card.json"]
    command = [sys.executable, "-c", KILLED, *map(str, (*given, *argv))]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode < 0, done.stderr
    assert len(list((tmp_path / "card.json.parts" / "pictures").iterdir())) == 1
    found = measure(*argv)
    assert (found[0], measure.batches) == (0, 2)
    assert found == measure(*argv, out="whole.json")
    assert measure.batches == 6
