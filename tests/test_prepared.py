"""Prepared image sets: made once, verified before they are read, and known by a fingerprint."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import flip

from t2i_jax import files
from t2i_jax.data.sources import captioned_digits, open_split
from t2i_jax.errors import UserError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    captioned_digits.open("train", folder, variant="tiny")
    return folder


def test_a_split_is_prepared_once_and_then_read(data_dir, capsys):
    for split, count in (("train", 512), ("validation", 64), ("compositions", 64)):
        opened, _ = captioned_digits.open(split, data_dir, variant="tiny")
        assert len(opened) == count
    assert "preparing" not in capsys.readouterr().err
    example = opened[0]
    assert (example["image"].shape, example["image"].dtype) == ((32, 32, 3), np.uint8)
    assert isinstance(example["caption"], bytes)


def test_preparing_what_needs_no_download_speaks_of_none(tmp_path, capsys):
    captioned_digits.open("train", str(tmp_path), variant="tiny")
    out, err = capsys.readouterr()
    assert out == ""
    assert f"preparing captioned_digits/tiny in {tmp_path}" in err
    assert "ownload" not in err


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
        open_split({"name": name, "data_dir": data_dir}, split)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def unsigned(data_dir, tmp_path):
    """A prepared set that has lost its manifest."""
    shutil.copytree(data_dir, tmp_path / "data")
    folder = tmp_path / "data" / "captioned_digits" / "tiny" / "1.3.0"
    (folder / "digests.json").unlink()
    return folder


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("dataset_info.json", flip),
        ("dataset_info.json", Path.unlink),
        ("captioned_digits-train.array_record-00000-of-00001", flip),
        ("captioned_digits-train.array_record-00000-of-00001", Path.unlink),
    ],
)
def test_a_corrupt_set_without_a_manifest_gets_none(unsigned, name, damage):
    damage(unsigned / name)
    with pytest.raises(UserError, match=r"captioned_digits/tiny.*; delete .*tiny to prepare it again") as error:
        captioned_digits.open("train", str(unsigned.parents[2]), variant="tiny")
    assert "\n" not in str(error.value)
    assert not (unsigned / "digests.json").exists()


def test_a_complete_set_without_a_manifest_gets_one(unsigned, capsys):
    (unsigned / "digests.json.partial").write_text("{")  # a kill while it was written
    for _ in range(2):
        assert len(captioned_digits.open("train", str(unsigned.parents[2]), variant="tiny")[0]) == 512
    assert capsys.readouterr().err.count("warning: ") == 1


def test_records_are_verified_once_and_not_before_they_are_read(data_dir, tmp_path, monkeypatch):
    """A set is opened at every start, to learn what it holds; its gigabytes are not read for that."""
    folder = shutil.copytree(data_dir, tmp_path / "data") / "captioned_digits" / "tiny" / "1.3.0"
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    read, sha256_of = [], files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: read.append(path.name) or sha256_of(path))
    opened, _ = captioned_digits.open("train", str(tmp_path / "data"), variant="tiny")
    assert not any("array_record" in name for name in read)
    for dataset in (opened, captioned_digits.open("validation", str(tmp_path / "data"), variant="tiny")[0]):
        dataset[0], dataset[1]
    assert sorted(name for name in read if "array_record" in name) == [
        f"captioned_digits-{split}.array_record-00000-of-00001" for split in ("compositions", "train", "validation")
    ]


def test_a_corrupt_record_is_named_before_the_first_one_is_read(data_dir, tmp_path):
    folder = shutil.copytree(data_dir, tmp_path / "data") / "captioned_digits" / "tiny" / "1.3.0"
    flip(folder / "captioned_digits-train.array_record-00000-of-00001")
    opened, _ = captioned_digits.open("validation", str(tmp_path / "data"), variant="tiny")
    with pytest.raises(
        UserError, match=r"train.array_record-00000-of-00001 is corrupt .*; delete .*tiny to prepare"
    ):
        opened[0]


def test_a_fingerprint_says_what_is_read(data_dir, tmp_path, monkeypatch):
    def fingerprint(split="train", folder=data_dir, **options):
        return captioned_digits.open(split, str(folder), variant="tiny", **options)[1]

    first = fingerprint()
    assert first == fingerprint()
    copy = shutil.copytree(data_dir, tmp_path / "copy")
    assert first == fingerprint(folder=copy)  # it is the same data wherever it lies
    others = [fingerprint("validation"), fingerprint("train[:100]"), fingerprint(corrupt="refuse")]
    monkeypatch.setattr(captioned_digits.CaptionedDigits, "VERSION", "9.9.9")
    others.append(fingerprint(folder=copy))
    assert len({first, *others}) == 5


def test_a_misspelt_folder_is_not_made(tmp_path):
    with pytest.raises(
        UserError, match=r"nowhere does not exist; make that folder, or name another config.data.data_dir"
    ):
        captioned_digits.open("train", str(tmp_path / "nowhere" / "data"), variant="tiny")
    assert not (tmp_path / "nowhere").exists()
