import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from t2i_jax.data.scenes import HELD_OUT, caption, draw_scene, render
from t2i_jax.data.sources import captioned_digits
from t2i_jax.errors import UserError

PREPARE_AND_READ = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from t2i_jax.data.sources import captioned_digits
assert captioned_digits.open("train", sys.argv[1], variant="tiny")[0][0]["image"].shape == (32, 32, 3)
assert "tensorflow" not in sys.modules
"""
SIZES = {"train": 512, "validation": 64, "compositions": 64}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set, prepared by a process without a network that must not load TensorFlow."""
    folder = tmp_path_factory.mktemp("data")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE_AND_READ, str(folder)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return folder


def read(folder: Path, split: str) -> tuple[list[str], np.ndarray]:
    examples = list(captioned_digits.open(split, str(folder), variant="tiny")[0])
    return [example["caption"].decode() for example in examples], np.stack(
        [example["image"] for example in examples]
    )


def mentions_held_out(words: str) -> bool:
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return any(re.search(rf"\b{colour} {names[value]}s?\b", words) for colour, value in HELD_OUT)


def test_splits(prepared: Path) -> None:
    for split, size in SIZES.items():
        captions, images = read(prepared, split)
        assert len(captions) == size
        assert images.shape == (size, 32, 32, 3)
        assert images.dtype == np.uint8
        assert images.max((1, 2, 3)).min() > 100
        held_out = [mentions_held_out(words) for words in captions]
        assert all(held_out) if split == "compositions" else not any(held_out)


def test_preparing_again_gives_the_same_examples(prepared: Path, tmp_path: Path) -> None:
    """In another process, too. (Not the same bytes: protobuf orders an example's fields anew in each.)"""
    for split in SIZES:
        (captions, images), (again, images_again) = read(prepared, split), read(tmp_path, split)
        assert captions == again
        np.testing.assert_array_equal(images, images_again)


def test_pictures_are_those_of_the_split_s_own_stream(prepared: Path) -> None:
    """So a larger split starts with the smaller one, and one split's size changes no other."""
    for stream, (split, hand) in enumerate(
        [("train", "train"), ("validation", "validation"), ("compositions", "validation")]
    ):
        captions, images = read(prepared, split)
        rng = np.random.default_rng([0, stream])
        for words, image in zip(captions, images, strict=True):
            scene = draw_scene(rng, held_out=split == "compositions")
            assert words == caption(scene)
            np.testing.assert_array_equal(image, render(scene, hand, rng))


def test_splits_differ(prepared: Path) -> None:
    train, validation = read(prepared, "train")[1], read(prepared, "validation")[1]
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in validation}


def test_configs() -> None:
    configs = {config.name: config for config in captioned_digits.CaptionedDigits.BUILDER_CONFIGS}
    assert next(iter(configs)) == "coarse"
    for name, train in (("coarse", 50_000), ("fine", 150_000)):
        sizes = configs[name].train, configs[name].validation, configs[name].compositions
        assert sizes == (train, 2_000, 1_000)
    assert [configs[name].fine for name in ("coarse", "fine")] == [False, True]


def test_unknown_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no configuration 'fien'; it has coarse, fine, tiny"):
        captioned_digits.open("train", str(tmp_path), variant="fien")
