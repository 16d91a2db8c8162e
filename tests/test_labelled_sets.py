"""MNIST, Fashion-MNIST and CIFAR10: published files in, captioned pictures out, without TensorFlow."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest
from published import CAPTIONS, COUNTS, idx, pictures, write_cifar, write_idx

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.data import pipeline
from t2i_jax.data.sources import mnist, open_split
from t2i_jax.errors import UserError

READ = """
import sys
from t2i_jax.data.sources import open_split
for name in ("mnist", "fashion_mnist", "cifar10"):
    for example in open_split({"name": name, "data_dir": sys.argv[1]}, "train[:3]")[0]:
        print(name, sorted(example), example["image"].shape, example["image"].dtype)
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The files of all three sets."""
    folder = tmp_path_factory.mktemp("data")
    write_idx(folder, "mnist")
    write_idx(folder, "fashion_mnist", zipped=True)
    write_cifar(folder)
    return folder


def opened(name, folder, split="train"):
    return open_split({"name": name, "data_dir": str(folder)}, split)


@pytest.mark.parametrize("name", CAPTIONS)
@pytest.mark.parametrize("split", COUNTS)
def test_pictures_and_captions_are_those_of_the_files(data_dir, name, split):
    examples = list(opened(name, data_dir, split)[0])
    images, labels = pictures(name, split)
    np.testing.assert_array_equal([example["image"] for example in examples], images)
    assert [example["caption"].decode() for example in examples] == [CAPTIONS[name][label] for label in labels]
    assert set(examples[0]) == {"image", "caption"}
    assert len(set(labels)) == len(CAPTIONS[name])


def test_neither_preparing_nor_reading_needs_tensorflow(data_dir, tmp_path):
    (tmp_path / "downloads").symlink_to(data_dir / "downloads")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *["mnist ['caption', 'image'] (28, 28, 1) uint8"] * 3,
        *["fashion_mnist ['caption', 'image'] (28, 28, 1) uint8"] * 3,
        *["cifar10 ['caption', 'image'] (32, 32, 3) uint8"] * 3,
    ]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["binary", "python 2", "python 3", "protocol 5"])
def test_every_form_of_cifar10_is_the_same_set(data_dir, tmp_path, form, packed):
    write_cifar(tmp_path, form, packed)
    assert opened("cifar10", tmp_path)[1] == opened("cifar10", data_dir)[1]
    np.testing.assert_array_equal(
        [row["image"] for row in opened("cifar10", tmp_path)[0]], pictures("cifar10", "train")[0]
    )


def test_a_fingerprint_is_that_of_the_content(data_dir, tmp_path):
    first = opened("mnist", data_dir)[1]
    write_idx(tmp_path / "zipped", zipped=True)
    assert opened("mnist", tmp_path / "zipped")[1] == first
    for changed in ("images-idx3", "labels-idx1"):
        path = write_idx(tmp_path / changed) / f"train-{changed}-ubyte"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        assert opened("mnist", tmp_path / changed)[1] != first


def test_parts_of_a_split(data_dir):
    def read(split):
        return [example["image"].tobytes() for example in opened("mnist", data_dir, split)[0]]

    assert read("train[:15]") + read("train[15:]") == read("train")
    assert read("train[90%:]") == read("train")[18:]
    assert read("train[:2]+test[:1]") == read("train")[:2] + read("test")[:1]


@pytest.mark.parametrize(
    "split", ["trian", "trian[:3]", "train[:21]", "train[", "train[:x]", "train[5:5]", "train[9:3]", ""]
)
def test_a_split_that_is_none(data_dir, split):
    with pytest.raises(UserError) as error:
        opened("cifar10", data_dir, split)
    assert str(error.value) == f"cifar10 has no split {split!r} with pictures; it has train, test (20, 10 pictures)"


@pytest.mark.parametrize("variant", ["mnist", "fashion", "cifar10"])
def test_from_files_to_a_batch(data_dir, variant):
    config = load_config(f"vae:{variant}")
    config.data.update({"data_dir": str(data_dir), "train": "train[:15]", "validation": "train[15:]"})
    splits, transform = tasks.make(config).prepare(data_dir, {})
    batch = next(pipeline.train_stream(splits["train"], transform, batch_size=4, seed=0))
    side, channels = config.data.image_size, config.data.channels
    assert batch["image"].shape == (4, side, side, channels)
    assert batch["image"].dtype == np.float32
    assert 0 <= batch["image"].min() < 0.1 < 0.9 < batch["image"].max() <= 1
    assert (len(splits["train"]), len(splits["validation"])) == (15, 5)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("there", [(), ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte")])
def test_files_that_are_missing_are_named_with_their_address(tmp_path, name, there):
    folder = tmp_path / "downloads" / "manual" / name
    folder.mkdir(parents=True)
    for file in there:
        (folder / file).write_bytes(idx(pictures(name, "train")[there.index(file)].squeeze()))
    missing = "t10k-images-idx3-ubyte.gz" if there else "train-images-idx3-ubyte.gz"
    with pytest.raises(UserError) as error:
        opened(name, tmp_path)
    names = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz"
    assert str(error.value).startswith(f"{name} lacks {folder / missing}; put {names}, t10k-labels-idx1-ubyte.gz")
    assert "from http" in str(error.value)
    assert str(error.value).endswith(f" into {folder}")


def test_cifar10_without_files(tmp_path):
    with pytest.raises(UserError) as error:
        opened("cifar10", tmp_path)
    assert str(error.value) == (
        "cifar10 lacks its files; put cifar-10-binary.tar.gz or cifar-10-python.tar.gz from"
        " https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz, packed or unpacked, into"
        f" {tmp_path / 'downloads' / 'manual'}"
    )


def test_what_is_prepared_needs_its_files_no_more(tmp_path):
    folder = write_idx(tmp_path)
    first = opened("mnist", tmp_path)[1]
    for path in folder.iterdir():
        path.unlink()
    assert opened("mnist", tmp_path)[1] == first
    assert len(mnist.open("test", str(tmp_path))[0]) == COUNTS["test"]


def test_a_zipped_file_may_keep_the_name_of_the_plain_one(data_dir, tmp_path):
    """As some browsers save it."""
    for path in write_idx(tmp_path).iterdir():
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert opened("mnist", tmp_path)[1] == opened("mnist", data_dir)[1]
