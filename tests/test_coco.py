"""COCO captions 2017: what is prepared from the official files, and what of them is skipped."""

import json
import shutil
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from coco import GOOD, NAME, SKIPPED, captions_of, jpeg, write_coco
from PIL import Image
from tensorflow_datasets.core import shuffle

from t2i_jax import files
from t2i_jax.data import images, skipped
from t2i_jax.data.sources import coco_captions_2017
from t2i_jax.errors import UserError


@pytest.fixture
def manual(tmp_path):
    """A toy COCO where the builder looks for the official one."""
    folder = tmp_path / "downloads" / "manual"
    write_coco(folder)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(coco_captions_2017.urllib.request, "urlopen", refuse)


def open_split(tmp_path, split="train", **options):
    return coco_captions_2017.open(split, str(tmp_path), variant="tiny", **options)[0]


def test_pictures_that_can_be_read_are_there_in_order(manual, tmp_path, monkeypatch):
    monkeypatch.setattr(coco_captions_2017, "SHARD_SIZE", 2)  # one of them is left with no picture
    train, validation = list(open_split(tmp_path)), list(open_split(tmp_path, "validation"))
    assert [example["image_id"] for example in train] == list(GOOD)
    assert [example["image_id"] for example in validation] == [10, 11]
    for example in train + validation:
        assert example["captions"] == captions_of(example["image_id"])
        assert (example["image"].shape, example["image"].dtype) == ((16, 16, 3), np.uint8)
    for example in train:  # a picture's colour is its number; of CMYK it is more light than that
        number = example["image_id"]
        if GOOD[number] == "cmyk":
            expected = images.crop(images.decode(jpeg("cmyk", number)), 16)
            np.testing.assert_array_equal(example["image"], expected)
        else:
            assert example["image"].mean() == pytest.approx(20 * number + 14.5, abs=3)
    assert [len(open_split(tmp_path, part)) for part in ("train[:2]", "train[2:]")] == [2, 3]


def test_the_rest_is_named(manual, tmp_path, capsys):
    folder = Path(tmp_path, NAME, "1.0.0")
    open_split(tmp_path)
    assert files.read_json(folder / skipped.FILE)["skipped"] == SKIPPED
    assert skipped.FILE in files.verify_manifest(folder)["files"]
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        f"warning: {NAME} lacks pictures: 1 captioned without a picture (train2017/99), 1 corrupt ("
    )
    assert "1 missing (train2017/000000000008.jpg), 1 without captions (" in line
    open_split(tmp_path)
    assert "lacks" not in capsys.readouterr().err


def test_or_refused(manual, tmp_path):
    for _ in range(2):  # when it is prepared, and afterwards
        with pytest.raises(UserError, match=r"lacks pictures: .*; config.data.corrupt=skip goes on without them"):
            open_split(tmp_path, corrupt="refuse")
    with pytest.raises(UserError, match=r"config.data.corrupt is 'ignore'; it is skip or refuse"):
        open_split(tmp_path, corrupt="ignore")
    for part in ("train2017", "val2017"):
        _write_annotations(manual, part, [10, 11] if part == "val2017" else [1, 2])
    shutil.rmtree(tmp_path / NAME)
    assert len(open_split(tmp_path, corrupt="refuse")) == 2


def _write_annotations(manual, part, numbers):
    path = manual / "annotations" / f"captions_{part}.json"
    content = json.loads(path.read_text())
    content["images"] = [row for row in content["images"] if row["id"] in numbers]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in numbers]
    path.write_text(json.dumps(content))


def test_preparing_again_gives_the_same(manual, tmp_path, monkeypatch):
    first = list(open_split(tmp_path))
    shutil.rmtree(tmp_path / NAME)
    monkeypatch.setattr(coco_captions_2017, "SHARD_SIZE", 3)
    # TFDS's shuffler asks TensorFlow for files once it holds more than this, 1 GB: here, at once.
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    for example, again in zip(first, open_split(tmp_path), strict=True):
        np.testing.assert_array_equal(example["image"], again["image"])
        assert (example["captions"], example["image_id"]) == (again["captions"], again["image_id"])


def test_archives_serve_as_well(manual, tmp_path):
    unpacked = list(open_split(tmp_path))
    other = tmp_path / "other"
    for part, archive in coco_captions_2017.ARCHIVES.items():
        path = other / "downloads" / "manual" / Path(archive).name
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as opened:
            for file in sorted((manual / part).iterdir()):
                opened.write(file, f"{part}/{file.name}")
    for example, zipped in zip(unpacked, open_split(other), strict=True):
        np.testing.assert_array_equal(example["image"], zipped["image"])
    assert files.read_json(Path(other, NAME, "1.0.0", skipped.FILE))["skipped"] == SKIPPED
    path.write_bytes(path.read_bytes()[:-40])
    shutil.rmtree(other / NAME)
    with pytest.raises(UserError, match=r"val2017.zip is cut short or no zip file \(.*\); fetch it again"):
        open_split(other)


def test_without_files_or_network(manual, tmp_path, no_network):
    shutil.rmtree(manual / "train2017")
    with pytest.raises(UserError) as error:
        open_split(tmp_path)
    assert str(error.value) == (
        "COCO lacks train2017, and fetching failed (no network in this test); put"
        f" http://images.cocodataset.org/zips/train2017.zip, zipped or unpacked, into {manual}"
    )


@pytest.mark.parametrize(
    ("part", "cut"),
    [
        ("val2017", lambda content: content[: content.index(b'"annotations"') + 30]),  # before a picture is read
        ("train2017", lambda content: content[: content.index(b'"file_name"')]),
        ("val2017", lambda _: b"{}"),
        ("val2017", lambda _: b"\xff"),
        ("val2017", lambda _: b"<html>{404}</html>"),
        ("val2017", lambda content: content.replace(b'"caption"', b'"text"')[:-1]),
    ],
)
def test_annotations_without_a_caption_are_refused(manual, tmp_path, part, cut, monkeypatch):
    monkeypatch.setattr(images, "decode", None)
    path = manual / "annotations" / f"captions_{part}.json"
    path.write_bytes(cut(path.read_bytes()))
    for corrupt in ("skip", "refuse"):
        with pytest.raises(
            UserError, match=rf"captions_{part}.json is cut short or holds no captions \(.*; fetch"
        ) as error:
            open_split(tmp_path, corrupt=corrupt)
        assert "\n" not in str(error.value)


OFFICIAL = {"info": {"year": 2017}, "licenses": [{"id": 1}]}  # what stands before the pictures


@pytest.mark.parametrize("damage", ["cut", "broken", "no utf-8"])
@pytest.mark.parametrize("spaces", [None, 1])
def test_of_cut_annotations_what_is_whole_is_read(manual, tmp_path, capsys, damage, spaces):
    path = manual / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text())
    numbers = [1, 2, 3, 4]
    content = OFFICIAL | {
        "images": [row for row in content["images"] if row["id"] in numbers],
        "annotations": sorted(
            (row for row in content["annotations"] if row["image_id"] in numbers), key=lambda row: row["id"]
        ),
    }  # 5 captions of 1, 5 of 2, and 2 of 3, of which the second is not whole
    written = json.dumps(content, indent=spaces).encode()
    place = written.index(b"words  1", written.index(b"picture 3"))
    rest = {"cut": b"", "broken": b'"' + written[place:], "no utf-8": b"\xc3" + written[place:]}[damage]
    path.write_bytes(written[:place] + rest)

    assert [(row["image_id"], len(row["captions"])) for row in open_split(tmp_path)] == [(1, 5), (2, 5), (3, 1)]
    lacking = (
        "lacks pictures: 1 file of annotations cut short (annotations/captions_train2017.json after 11 captions),"
        " 1 without captions (train2017/000000000004.jpg)"
    )
    assert lacking in capsys.readouterr().err
    with pytest.raises(UserError) as error:
        open_split(tmp_path, corrupt="refuse")
    assert str(error.value) == (
        f"data set {NAME} {lacking}; config.data.corrupt=skip goes on without them, or replace the files and delete"
        f" {tmp_path / NAME}"
    )


def test_no_picture_at_all(manual, tmp_path):
    for file in (manual / "train2017").iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"has no split 'train' with pictures; it has train, validation \(0, 2 pictures\)"
    ):
        open_split(tmp_path)


def test_any_error_of_decoding_one_picture_skips_that_one(manual, tmp_path, monkeypatch):
    """By name and reason: a decoder may raise anything, and a picture may be too large for memory."""
    to_rgb = images.to_rgb

    def decode(image, background):
        if image.mode == "L":
            raise RuntimeError("Failed to decode frame 0: Decoding of color planes failed")
        return to_rgb(image, background)

    monkeypatch.setattr(images, "to_rgb", decode)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)  # more than twice as many are refused, and 1 has 1,952
    assert [example["image_id"] for example in open_split(tmp_path)] == [4, 5]
    named = files.read_json(tmp_path / NAME / "1.0.0" / skipped.FILE)["skipped"]
    assert named["corrupt (RuntimeError)"] == ["train2017/000000000003.jpg"]
    assert "train2017/000000000001.jpg" in named["above 1,800 pixels"]


def test_a_row_of_annotations_that_cannot_be_read_is_skipped(manual, tmp_path, capsys):
    path = manual / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text())
    by_id = {row["id"]: row for row in content["annotations"]}
    by_id[10]["caption"] = None
    del by_id[21]["image_id"]
    content["images"] += [{"id": "x", "file_name": "x.jpg"}]
    path.write_text(json.dumps(content))
    captions = {example["image_id"]: example["captions"] for example in open_split(tmp_path)}
    assert captions[1] == captions_of(1)[1:]
    assert captions[2] == [words for number, words in enumerate(captions_of(2)) if number != 1]
    assert captions[3] == captions_of(3)
    named = files.read_json(tmp_path / NAME / "1.0.0" / skipped.FILE)["skipped"]
    rows = sorted(content["annotations"].index(by_id[number]) for number in (10, 21))
    assert named["row of annotations that cannot be read"] == [
        f"annotations/captions_train2017.json, row {number}" for number in rows
    ]
    assert named["row of images that cannot be read"] == ["annotations/captions_train2017.json, row 9"]


@pytest.mark.parametrize(
    "row",
    [{"file_name": name} for name in ("../outside.jpg", "/outside.jpg", "a\0", "a" * 300, ".", "\ud800", "1.jpg/x")]
    + [{"id": number} for number in (float("inf"), 2**63)],
)
def test_rows_that_name_no_picture_of_the_folder_are_skipped(manual, tmp_path, row):
    (manual / "outside.jpg").write_bytes(jpeg("wide", 7))
    path = manual / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text())
    content["images"].append({"id": 99, "file_name": "1.jpg", **row})  # captions of 99 are there
    path.write_text(json.dumps(content))
    skipped = defaultdict(list)
    names, _ = coco_captions_2017._read_annotations(manual, "train2017", skipped)
    assert sorted(names) == list(range(1, 10))
    assert skipped == {"row of images that cannot be read": ["annotations/captions_train2017.json, row 9"]}


def test_annotations_too_deep_and_texts_that_are_none(manual):
    path = manual / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["caption"] = "\ud800 a"
    path.write_text(json.dumps(content))
    _, captions = coco_captions_2017._read_annotations(manual, "train2017", defaultdict(list))
    assert "? a" in captions[content["annotations"][0]["image_id"]]
    # Nested too deep, twice; and found by fuzzing, a name that stands twice, and no name at all.
    deep = b"[" * 100_000
    for broken in (deep, b'{"images": ' + deep, b'{"images": 0, "images": [1, ', b'{["images"]: 0, '):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"json is cut short or holds no captions \([^\n]*$"):
            coco_captions_2017._read_annotations(manual, "train2017", {})
