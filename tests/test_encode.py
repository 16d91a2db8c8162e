"""Token caches: encoded once, and again whenever they are of other images or captions, or of another tokenizer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from coco import CAPTIONS, GOOD, NAME, FakeTokenizer, write_coco

from t2i_jax import encode, files, hosts
from t2i_jax.data.sources import coco_captions_2017
from t2i_jax.errors import UserError

REPO = Path(__file__).parents[1]


@pytest.fixture
def config(tmp_path):
    """Of a translator of toy COCO, whose tokenizer has a run folder."""
    write_coco(tmp_path / "data" / "downloads" / "manual")
    (tmp_path / "run").mkdir()
    data = {"name": NAME, "data_dir": str(tmp_path / "data"), "train": "train", "validation": "validation"}
    data |= {"image_size": 16, "channels": 3}
    model = {"codebook_size": 64, "num_tokens": 4}
    return ml_collections.ConfigDict({"data": data | {"corrupt": "skip"}, "model": model})


def encode_in(config, tmp_path, **attributes):
    """The tokens, and how many images were encoded for them."""
    tokenizer = FakeTokenizer()
    vars(tokenizer).update(attributes)
    return encode.encode(config, tokenizer, tmp_path / "run"), tokenizer.calls


def captions_in(encoded):
    return list(encoded.splits["train"].captions())


def test_tokens_are_made_once(config, tmp_path, capsys):
    first, count = encode_in(config, tmp_path)
    assert count == len(GOOD) + 2
    capsys.readouterr()
    again, count = encode_in(config, tmp_path)
    assert count == 0
    assert capsys.readouterr().err == ""
    assert captions_in(again) == captions_in(first)
    assert again.baselines == first.baselines


def test_captions_that_were_edited(config, tmp_path, capsys):
    encode_in(config, tmp_path)
    path = tmp_path / "data" / "downloads" / "manual" / "annotations" / "captions_train2017.json"
    path.write_text(path.read_text().replace("picture", "photograph"))
    shutil.rmtree(tmp_path / "data" / NAME)  # prepare it anew
    encoded, count = encode_in(config, tmp_path)
    assert count == len(GOOD) + 2  # they lie in one set, of which nothing says that a split stayed the same
    assert captions_in(encoded) == [
        f"photograph {number}, words {i} é." for number in GOOD for i in range(CAPTIONS)
    ]
    said = capsys.readouterr().err
    for split in ("train", "validation"):
        folder = tmp_path / "run" / "tokens" / "coco_captions_2017-tiny" / split
        assert f"tokens in {folder} are made of data " in said
    assert "encoding again" in said


def test_another_version_of_the_builder(config, tmp_path, monkeypatch):
    encode_in(config, tmp_path)
    monkeypatch.setattr(coco_captions_2017.CocoCaptions2017, "VERSION", "1.1.0")
    assert encode_in(config, tmp_path)[1] == len(GOOD) + 2


def test_another_folder(config, tmp_path):
    first, _ = encode_in(config, tmp_path)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    config.data.data_dir = str(tmp_path / "copy")
    assert encode_in(config, tmp_path)[1] == 0  # the same data
    other = tmp_path / "other"
    write_coco(other / "downloads" / "manual")
    path = other / "downloads" / "manual" / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] != 1]
    path.write_text(json.dumps(content))
    config.data.data_dir = str(other)
    encoded, count = encode_in(config, tmp_path)
    assert count == len(GOOD) - 1 + 2
    assert captions_in(encoded) == captions_in(first)[CAPTIONS:]


def test_a_folder_that_does_not_exist(config, tmp_path):
    encode_in(config, tmp_path)
    config.data.data_dir = str(tmp_path / "typo")
    with pytest.raises(UserError) as error:
        encode_in(config, tmp_path)
    assert str(error.value).startswith(f"config.data.data_dir {tmp_path / 'typo'} does not exist, so nothing says")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "typo").exists()


def test_another_tokenizer(config, tmp_path, capsys):
    encode_in(config, tmp_path)
    assert encode_in(config, tmp_path, digest="another")[1] == len(GOOD) + 2
    assert "made of tokenizer digest, now it is another: encoding again" in capsys.readouterr().err


def test_pictures_of_another_size_than_the_config_says_are_not_tokenized_as_they_are(config, tmp_path):
    config.data.image_size = 32
    with pytest.raises(UserError, match=r"has images \(16, 16, 3\), not \(32, 32, 3\); set config.data.image_size"):
        encode_in(config, tmp_path)


def test_another_policy(config, tmp_path):
    encode_in(config, tmp_path)
    config.data.corrupt = "refuse"
    with pytest.raises(UserError, match="lacks pictures"):
        encode_in(config, tmp_path)


def test_baselines_are_counted_once(config, tmp_path, monkeypatch, capsys):
    expected = encode_in(config, tmp_path)[0].baselines
    path = tmp_path / "run" / "tokens" / "coco_captions_2017-tiny" / encode.BASELINES
    counted, baselines = [], encode.baselines
    monkeypatch.setattr(encode, "baselines", lambda *args: counted.append(1) or baselines(*args))
    assert encode_in(config, tmp_path)[0].baselines == expected
    assert not counted
    path.write_bytes(path.read_bytes()[:-9])
    assert encode_in(config, tmp_path)[0].baselines == expected
    assert f"warning: {path} is corrupt" in capsys.readouterr().err
    assert len(counted) == 1
    config.data.train = "train[:2]"
    assert encode_in(config, tmp_path)[0].baselines != expected
    assert len(counted) == 2


SLOWLY = """
import sys, time
from test_encode import *

class Slow(FakeTokenizer):
    def tokenize(self, images):
        time.sleep(1)
        return super().tokenize(images)

data = {"name": NAME, "data_dir": sys.argv[1], "train": "train", "validation": "validation", "corrupt": "skip"}
data |= {"image_size": 16, "channels": 3}
config = ml_collections.ConfigDict({"data": data, "model": {"codebook_size": 64, "num_tokens": 4}})
tokenizer = Slow()
print("ready", flush=True)
sys.stdin.readline()
encode.encode(config, tokenizer, sys.argv[2])
print(tokenizer.calls)
"""


@pytest.mark.slow
def test_three_trainings_that_start_at_once(config, tmp_path):
    """One encodes, and the others wait for it and say so."""
    coco_captions_2017.open("train", config.data.data_dir, variant="tiny")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "tests")])}
    command = [sys.executable, "-c", SLOWLY, config.data.data_dir, str(tmp_path / "run")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    started = [subprocess.Popen(command, env=environment, text=True, **pipes) for _ in range(3)]
    try:
        for process in started:
            assert process.stdout.readline() == "ready\n"
        for process in started:
            process.stdin.write("\n")
            process.stdin.flush()
        ended = [process.communicate(timeout=60) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0, 0], ended
    assert sorted(int(out) for out, _ in ended) == [0, 0, len(GOOD) + 2]
    waiting = f"waiting for {tmp_path / 'run'}, in use by process "
    assert sum(waiting in said for _, said in ended) == 2
    manifest = files.read_json(tmp_path / "run/tokens/coco_captions_2017-tiny/train" / files.MANIFEST)
    assert manifest["count"] == len(GOOD)


def test_only_the_first_host_encodes(config, tmp_path, monkeypatch):
    """The second one comes when it is done; what a barrier does is not tried here."""
    counts = []

    def first_works(_):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hosts, "is_first", lambda: True)
            patch.setattr(hosts.multihost_utils, "process_allgather", np.atleast_1d)
            counts.append(encode_in(config, tmp_path)[1])
        return np.array([False, False])

    monkeypatch.setattr(hosts, "is_first", lambda: False)
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", first_works)
    encoded, count = encode_in(config, tmp_path)
    assert (count, counts) == (0, [len(GOOD) + 2])
    assert encoded.splits["train"].count == len(GOOD)
