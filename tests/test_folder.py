"""A folder of one's own pictures: what is prepared of it, which split gets what, and when it is prepared anew."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from folders import ODD, SKIPPED, encoded, noise, write_numbered, write_odd
from PIL import Image

from t2i_jax import files
from t2i_jax.data import skipped
from t2i_jax.data.entries import Picture
from t2i_jax.data.sources import folder, open_split
from t2i_jax.errors import UserError


@pytest.fixture
def opened(tmp_path):
    """`opened(split, **options)`: the examples of `tmp_path / "pictures"`, by caption."""

    def call(split, **options):
        options = {"image_size": 16, **options}
        dataset = folder.open(split, str(tmp_path / "data"), dir=str(tmp_path / "pictures"), **options)[0]
        return [([caption.decode() for caption in row["captions"]], row["image"]) for row in dataset]

    return call


def captions_of(examples) -> set[str]:
    return set().union(*(captions for captions, _ in examples))


def test_every_odd_picture_is_used_rightly_or_skipped_by_name(tmp_path, opened, monkeypatch, capsys):
    own = tmp_path / "pictures"
    write_odd(own)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    examples = opened("train", validation_share=0.0, background="#00ff00")
    shown = {caption: image.astype(int) for (caption,), image in examples}
    assert set(shown) == set(ODD.values())
    for name in ("grey.png", "grey16.png"):
        ramp = shown[ODD[name]]
        np.testing.assert_allclose(ramp[:, :, 0], np.tile(np.linspace(4, 251, 16), (16, 1)), atol=4)
        assert (ramp[..., :1] == ramp).all()
    colours = {
        "palette.gif": (255, 0, 0),
        "cmyk.jpg": (255, 0, 0),
        "animated.gif": (0, 0, 255),  # of the first frame
        "png.jpg": (0, 255, 0),
        "no_suffix": (255, 255, 0),
        "wide.webp": (255, 255, 255),  # its central square
    }
    for name, colour in colours.items():
        np.testing.assert_allclose(shown[ODD[name]], np.broadcast_to(colour, (16, 16, 3)), atol=3)
    for caption, above, below in (("a hole", 0, (0, 255, 0)), ("a picture on its side", 255, 0)):
        np.testing.assert_allclose(shown[caption][:5] - above, 0, atol=3)  # not where the filter rings
        np.testing.assert_allclose(shown[caption][11:] - below, 0, atol=3)

    (report,) = (tmp_path / "data" / "folder").rglob(skipped.FILE)
    assert files.read_json(report)["skipped"] == SKIPPED
    assert "1 corrupt (cut.jpg)" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"lacks pictures: .*; config.data.corrupt=skip goes on"):
        opened("train", validation_share=0.0, background="#00ff00", corrupt="refuse")


def test_adding_pictures_moves_none_between_splits(tmp_path, opened):
    before = {"train": set(), "validation": set()}
    for numbers in (range(12), range(12, 25), range(25, 60)):
        write_numbered(tmp_path / "pictures", numbers)
        now = {split: captions_of(opened(split, validation_share=0.2)) for split in before}
        assert len(now["train"] | now["validation"]) == numbers.stop
        assert not now["train"] & now["validation"]
        for split, earlier in before.items():
            assert earlier < now[split]
        before = now
    assert 5 <= len(before["validation"]) <= 19  # of 60, 12 are expected
    own = tmp_path / "pictures"
    for number in range(60):
        (own / f"{number}.png").rename(own / f"renamed {number}.png")
    rows = own / "captions.jsonl"
    rows.write_text(rows.read_text().replace('"file": "', '"file": "renamed '))
    assert {split: captions_of(opened(split, validation_share=0.2)) for split in before} == before


def test_a_split_without_a_picture_shares_the_others(tmp_path, opened, capsys):
    write_numbered(tmp_path / "pictures", range(4))
    everything = {f"picture {number}" for number in range(4)}
    for share in (0.0, 0.999):
        for split in ("train", "validation"):
            assert captions_of(opened(split, validation_share=share)) == everything
        said = capsys.readouterr().err
        empty = "validation" if share == 0 else "train"
        assert f"has no picture for {empty} alone (config.data.validation_share {share}): it shares" in said


def test_a_split_whose_only_picture_cannot_be_read_shares_the_others_too(tmp_path, opened):
    write_numbered(tmp_path / "pictures", range(3))
    with (tmp_path / "pictures" / "captions.jsonl").open("a") as rows:
        rows.write(json.dumps({"file": "broken.png", "caption": "broken"}) + "\n")
    share, content = 0.01, encoded(noise(9))[:-600]
    endings = (content + number.to_bytes(2) for number in range(1 << 16))
    chosen = next(each for each in endings if Picture(sha256(each).hexdigest(), [], []).is_held_out(share))
    (tmp_path / "pictures" / "broken.png").write_bytes(chosen)
    assert len(opened("validation", validation_share=share)) == 3
    assert len(opened("train", validation_share=share)) == 3
    (report,) = (tmp_path / "data" / "folder").rglob(skipped.FILE)
    assert files.read_json(report)["skipped"] == {"corrupt": ["broken.png"]}


def test_equal_pictures_are_one_with_the_captions_of_all(tmp_path, opened):
    write_numbered(tmp_path / "pictures", [1, 2, 1])
    (tmp_path / "pictures" / "copy.png").write_bytes(encoded(noise(1)))
    with (tmp_path / "pictures" / "captions.jsonl").open("a") as rows:
        rows.write(json.dumps({"file": "copy.png", "captions": ["a copy", "picture 1"]}) + "\n")
    examples = opened("train", validation_share=0.0)
    assert sorted(map(sorted, (captions for captions, _ in examples))) == [["a copy", "picture 1"], ["picture 2"]]


def test_crops_and_mirrored_pictures_are_for_training_alone(tmp_path, opened):
    write_numbered(tmp_path / "pictures", range(10))
    plain = {caption: image for (caption,), image in opened("train", validation_share=0.3)}
    held_out = opened("validation", validation_share=0.3)
    options = {"validation_share": 0.3, "crops": 3, "crop_scale": (0.4, 0.6), "flip": True}
    examples = opened("train", **options)
    assert len(examples) == len(plain) * 4 * 2
    for caption, image in plain.items():
        own = [pixels for (words,), pixels in examples if words == caption]
        np.testing.assert_array_equal(own[0], image)  # the central square first
        for pixels, mirrored in zip(own[:4], own[4:], strict=True):
            np.testing.assert_array_equal(pixels[:, ::-1], mirrored)
        assert len({pixels.tobytes() for pixels in own}) == 8
    again = opened("validation", **options)
    assert [image.tobytes() for _, image in again] == [image.tobytes() for _, image in held_out]


def test_a_crop_depends_on_its_picture_alone(tmp_path, opened):
    def crops():
        examples = opened("train", validation_share=0.0, crops=2)
        return [pixels.tobytes() for (caption,), pixels in examples if caption == "picture 1"]

    write_numbered(tmp_path / "pictures", [1, 2])
    before = crops()
    write_numbered(tmp_path / "pictures", [0, 3])
    assert crops() == before


def test_shards_together_hold_every_example(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(folder, "SHARD_SIZE", 4)
    write_numbered(tmp_path / "pictures", range(5))
    assert len(opened("train", validation_share=0.0, crops=1)) == 10
    (info,) = (tmp_path / "data").rglob("dataset_info.json")
    lengths = {split["name"]: split["shardLengths"] for split in json.loads(info.read_text())["splits"]}
    assert lengths == {"train": ["4", "4", "2"], "validation": ["5"]}


CHANGES = {
    "a picture added": lambda own: write_numbered(own, [7]),
    "a picture removed": lambda own: (own / "2.png").unlink(),
    "a picture changed": lambda own: (own / "2.png").write_bytes(encoded(noise(8))),
    "a caption changed": lambda own: (own / "captions.jsonl").write_text(
        (own / "captions.jsonl").read_text().replace("picture 2", "another picture")
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed_and_said(tmp_path, opened, capsys, caplog, change):
    write_numbered(tmp_path / "pictures", range(3))
    before = captions_of(opened("train", validation_share=0.0))
    capsys.readouterr()
    opened("train", validation_share=0.0)
    assert (capsys.readouterr().err, caplog.text) == ("", "")
    CHANGES[change](tmp_path / "pictures")
    after = opened("train", validation_share=0.0)
    said = capsys.readouterr().err
    assert "was made of other pictures, captions or options than" in said
    assert "preparing folder/pictures-" in said
    expected = {
        "a picture added": before | {"picture 7"},
        "a picture removed": before - {"picture 2"},
        "a picture changed": before,
        "a caption changed": before - {"picture 2"} | {"another picture"},
    }
    assert captions_of(after) == expected[change]


def test_a_fingerprint_follows_from_files_and_options_and_not_from_the_place(tmp_path):
    def fingerprint(own="pictures", data="data", **options):
        options = {"dir": str(tmp_path / own), "image_size": 16, "validation_share": 0.0, **options}
        return folder.open("train", str(tmp_path / data), **options)[1]

    for own in ("pictures", "elsewhere/pictures"):
        write_numbered(tmp_path / own, range(3))
    first = fingerprint()
    assert fingerprint("elsewhere/pictures", "other") == first
    options = [{"image_size": 24}, {"flip": True}, {"crops": 1}, {"background": "black"}, {"validation_share": 0.1}]
    assert len({first, *(fingerprint(**changed) for changed in options)}) == 6
    assert fingerprint(crops=1, crop_scale=(0.2, 0.3)) != fingerprint(crops=1)


RANGES = [
    ("dir", "", "config.data.dir is empty; name your folder of pictures, as in --config.data.dir=photos"),
    (
        "dir",
        ".",
        "config.data.data_dir data would lie in config.data.dir ., which would change with what",
    ),
    (
        "dir",
        "data/folder",
        "config.data.data_dir data would lie in config.data.dir data/folder, which would",
    ),
    ("dir", "nowhere", "nowhere is no folder, .tar or .parquet file; name one that holds pictures with captions"),
    ("validation_share", 1.0, "config.data.validation_share is 1.0; it is at least 0 and below 1"),
    ("background", "whitish", "config.data.background is 'whitish'; it is a colour, such as white or #ffffff"),
    ("background", "#ff000080", "config.data.background is '#ff000080'; it is a colour, such as white or #ffffff"),
    ("crops", -1, "config.data.crops is -1; it is 0 to 1000"),
    (
        "crop_scale",
        (0.0, 1.0),
        "config.data.crop_scale is (0.0, 1.0); it is two numbers, 0 < least <= largest <= 1",
    ),
]


@pytest.mark.parametrize(("field", "value", "said"), RANGES)
def test_an_option_that_does_not_fit_is_refused(tmp_path, monkeypatch, field, value, said):
    monkeypatch.chdir(tmp_path)
    write_numbered(tmp_path / "pictures", range(2))
    options = {"name": "folder", "data_dir": "data", "dir": "pictures", "image_size": 16}
    with pytest.raises(UserError) as error:
        open_split(options | {field: value}, "train")
    assert str(error.value).startswith(said)
    assert not Path("data").exists()
