"""A stranger's path, as the docs write it: photographs with captions -> check -> training -> a picture."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from t2i_jax.config import load_config
from t2i_jax.data.sources.captioned_photos import PHOTOGRAPHS, photograph
from t2i_jax.tasks.tokens import TokenTask

REPO = Path(__file__).parents[1]
SHORT = [
    f"--{config}.{field}"
    for config in ("config", "config.parents.tokenizer.config")
    for field in ("steps=3", "eval_every=3", "checkpoint_every=3", "batch_size=4", "optim.warmup=1")
]
"""Flags of a training that only shows that it works."""


def write_photographs(folder: Path) -> None:
    """Twenty photographs, JPEG and PNG, with captions."""
    folder.mkdir()
    pixels = {words: photograph(words) for words in PHOTOGRAPHS}
    pixels |= dict(zip(("a chinese temple", "a red dahlia"), load_sample_images().images, strict=True))
    halves = list(pixels.items())[: 20 - len(pixels)]
    pixels |= {f"the left half of {words}": half[:, : half.shape[1] // 2] for words, half in halves}
    with (folder / "captions.jsonl").open("w") as rows:
        for number, (words, picture) in enumerate(pixels.items()):
            name = f"{number}.{('jpg', 'png')[number % 2]}"
            Image.fromarray(picture).save(folder / name)
            rows.write(json.dumps({"file": name, "caption": words}) + "\n")


def test_a_field_of_the_data_is_set_once_for_tokenizer_and_translator():
    given = {"dir": "photos", "image_size": 128, "crops": 3, "crop_scale": (0.2, 0.5), "flip": True}
    config = load_config("translator:folder", [f"--config.data.{field}={value}" for field, value in given.items()])
    own = config.parents.tokenizer.config
    for field, value in given.items():
        assert config.data[field] == own.data[field] == value
    assert own.model.image_size == 128
    assert config.model.num_tokens == 64 + 64 + 256


def test_captions_of_the_data_are_shown_as_far_as_the_tokenizer_reads_them():
    """Where the config lists none: the first eight that can be read, each once."""
    captions = [
        "a cat",
        "\u200b",
        "a cat",
        "a dog that sleeps in the sun",
        "x" * 100,
        *(f"picture {i}" for i in range(9)),
    ]

    def lengths(texts):  # a piece has ten letters
        seen = (text.replace("\u200b", "").split() for text in texts)
        return [2 + sum(math.ceil(len(word) / 10) for word in words) for words in seen]

    encoded = SimpleNamespace(splits={"train": SimpleNamespace(captions=lambda: iter(captions))})
    task = SimpleNamespace(encoded=encoded, reader=SimpleNamespace(lengths=lengths, text_len=6))
    first = ["a cat", "a dog that sleeps", "x" * 25]
    assert TokenTask.captions_to_show(task) == [*first, *(f"picture {i}" for i in range(5))]


@pytest.mark.long
def test_from_photographs_to_a_picture(tmp_path):
    write_photographs(tmp_path / "photos")
    for name in ("train.py", "configs"):
        (tmp_path / name).symlink_to(REPO / name)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPO),
    }
    said = {}
    block = re.search(r"```sh\n(.*?)```", (REPO / "docs" / "own-pictures.md").read_text(), re.DOTALL)[1]
    for command in block.splitlines():
        command = " ".join([command, *(SHORT if "train.py" in command else [])])
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said[command.split()[1]] = done.stdout + done.stderr
    assert "20 pictures in photos" in said["data"]
    assert "skipped     nothing" in said["data"]
    assert "training patch_vqvae-folder" in said["train.py"]
    assert "training translator-folder" in said["train.py"]
    for sheet in ("contact-sheet.png", "grid.png"):
        with Image.open(tmp_path / sheet) as opened:
            assert np.asarray(opened).std() > 10
