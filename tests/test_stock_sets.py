"""TFDS's own labelled sets: real files in, prepared without TensorFlow's help by the test, and read without it.

Only the reading of a file and the writing of a PNG are replaced in TFDS's builders: those need TensorFlow.
"""

import io
import json
import os
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import cifar, mnist

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.data import pipeline
from t2i_jax.data.sources import open_split, stock
from t2i_jax.errors import UserError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN, TEST = 20, 10
READ = """
import sys
from t2i_jax.data.sources import stock
for name in ("mnist", "cifar10"):
    for example in stock.open("train[:3]", sys.argv[1], name=name)[0]:
        print(name, sorted(example), example["image"].shape, example["image"].dtype, example["caption"].decode())
assert "tensorflow" not in sys.modules
"""


def idx(array: np.ndarray) -> bytes:
    """MNIST's format: magic number, sizes, bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def originals(name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and labels, made up."""
    count = TRAIN if part == "train" else TEST
    rng = np.random.default_rng([len(name), count])
    shape = (28, 28, 1) if name == "mnist" else (32, 32, 3)
    return rng.integers(0, 256, (count, *shape), np.uint8), rng.permutation(count).astype(np.uint8) % 10


def write_originals(folder) -> None:
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = originals("mnist", part)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images[..., 0]))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    folder = folder / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("\n".join([*CLASSES, ""]))
    images, labels = originals("cifar10", "train")
    records = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(TRAIN, -1)], 1)
    for number, rows in enumerate(np.split(records, 5)):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(rows.tobytes())
    images, labels = originals("cifar10", "test")
    rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(TEST, -1)], 1)
    (folder / "test_batch.bin").write_bytes(rows.tobytes())


def png(_, image) -> bytes:
    opened = io.BytesIO()
    Image.fromarray(image.squeeze()).save(opened, "PNG")
    return opened.getvalue()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Both sets, prepared by TFDS's builders from files in the original formats."""
    folder, downloads = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("downloads")
    write_originals(downloads)

    def fetched(_, urls):
        return (
            {key: downloads / os.path.basename(url) for key, url in urls.items()}
            if type(urls) is dict
            else downloads
        )

    with pytest.MonkeyPatch.context() as patch:
        for module in (mnist, cifar):
            patch.setattr(module, "tf", SimpleNamespace(io=SimpleNamespace(gfile=SimpleNamespace(GFile=open))))
        patch.setattr(mnist, "_TRAIN_EXAMPLES", TRAIN)
        patch.setattr(mnist, "_TEST_EXAMPLES", TEST)
        patch.setattr(tfds.features.Image, "encode_example", png)
        patch.setattr(tfds.download.DownloadManager, "download_and_extract", fetched)
        for name in ("mnist", "cifar10"):
            builder = tfds.builder(name, data_dir=folder, file_format="array_record")
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return folder


def caption(name: str, label: int) -> str:
    return CLASSES[label] if name == "cifar10" else str(label)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_the_pictures_are_those_of_the_files_and_a_class_is_a_caption(data_dir, name, part):
    opened = stock.open(part, str(data_dir), name=name)[0]
    seen = {example["image"].tobytes(): example["caption"].decode() for example in opened}
    images, labels = originals(name, part)
    assert seen == {image.tobytes(): caption(name, label) for image, label in zip(images, labels, strict=True)}
    assert set(opened[0]) == {"image", "caption"}


def test_reading_needs_no_tensorflow(data_dir):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(data_dir)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.rpartition(" ")[0] for line in lines] == [
        *["mnist ['caption', 'image'] (28, 28, 1) uint8"] * 3,
        *["cifar10 ['caption', 'image'] (32, 32, 3) uint8"] * 3,
    ]
    assert {line.split()[-1] for line in lines} <= {*CLASSES, *"0123456789"}


def test_parts_of_a_split(data_dir):
    def pictures(split):
        return [example["image"].tobytes() for example in stock.open(split, str(data_dir), name="mnist")[0]]

    assert pictures("train[:15]") + pictures("train[15:]") == pictures("train")
    assert pictures("train[90%:]") == pictures("train")[18:]
    assert pictures("train[:2]+test[:1]") == pictures("train")[:2] + pictures("test")[:1]


@pytest.mark.parametrize(
    "split", ["trian", "trian[:3]", "train[:21]", "train[", "train[:x]", "train[5:5]", "train[9:3]", ""]
)
def test_a_split_that_is_none(data_dir, split):
    with pytest.raises(UserError) as error:
        stock.open(split, str(data_dir), name="cifar10")
    assert str(error.value) == f"cifar10 has no split {split!r} with pictures; it has train, test (20, 10 pictures)"


@pytest.mark.parametrize("name", ["mnist", "cifar10", "coco_captions"])
def test_preparing_needs_tensorflow(tmp_path, monkeypatch, name):
    found = stock.find_spec
    monkeypatch.setattr(stock, "find_spec", lambda module: None if module == "tensorflow" else found(module))
    with pytest.raises(UserError) as error:
        open_split({"name": name, "data_dir": str(tmp_path)}, "train")
    shown = "coco_captions/2014" if name == "coco_captions" else name
    line = f"data set {shown} is not prepared in {tmp_path}, and preparing it needs TensorFlow: pip install"
    assert str(error.value).startswith(f"{line} '.[prepare]', or copy {tmp_path / shown}")
    assert "\n" not in str(error.value)


def test_a_set_in_another_format(data_dir, tmp_path):
    """As TFDS prepares it where it is not told otherwise."""
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    source = next(data_dir.glob("mnist/3.*"))
    (folder / "features.json").write_bytes((source / "features.json").read_bytes())
    info = json.loads((source / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="is prepared as tfrecord; prepare it as array_record"):
        stock.open("train", str(tmp_path), name="mnist")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_real_sets_have_what_is_read(name):
    """Features and names of classes as this version of TFDS declares them, and made-up examples."""
    with tfds.testing.mock_data(num_examples=3):
        builder = tfds.builder(name)
        to_caption = stock.named_classes(name, builder.info.features)
        examples = [to_caption(example) for example in tfds.data_source(name, split="train")]
    assert len(examples) == 3
    assert all(example["caption"].decode() in {*CLASSES, *"0123456789"} for example in examples)
    assert all(example["image"].dtype == np.uint8 for example in examples)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_made_up_examples_go_all_the_way_to_a_batch(data_dir, name):
    """`tfds.testing.mock_data` needs no TensorFlow for a data source; of a prepared set it wants the folder."""
    config = load_config(f"vae:{name}")
    config.data.update({"data_dir": str(data_dir), "train": "train[:15]", "validation": "train[15:]"})
    with tfds.testing.mock_data(num_examples=7, data_dir=str(next(data_dir.glob(f"{name}/*")))):
        splits, transform = tasks.make(config).prepare(data_dir, {})
        assert len(splits["train"]) == len(splits["validation"]) == 7  # and not the 15 and 5 of the files
        batch = next(pipeline.train_stream(splits["train"], transform, batch_size=4, seed=0))
        captions = {example["caption"].decode() for example in splits["train"]}
    side, channels = config.data.image_size, config.data.channels
    assert batch["image"].shape == (4, side, side, channels)
    assert batch["image"].dtype == np.float32
    assert 0 <= batch["image"].min() < 0.1 < 0.9 < batch["image"].max() <= 1
    assert captions <= {*CLASSES, *"0123456789"}
    assert "tensorflow" not in sys.modules


def test_a_set_without_classes():
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": tfds.features.Text()})
    with pytest.raises(UserError, match="data set words has no pictures with class labels; it holds image, label"):
        stock.named_classes("words", features)
