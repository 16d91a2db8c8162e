"""COCO's archives, where strangers made them."""

import zipfile

import pytest

from t2i_jax.data.sources import coco_captions_2017
from t2i_jax.errors import UserError


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (8, b"\1"),
        (8, b"\x20"),
        (8, b"\x40"),
        (10, b"\x63"),
        (10, b"\x0c"),
        (6, b"\x63"),
        (9, b"\x08"),
        (42, b"\xff\xff\xff\x7f"),
        (24, b"\xf0\xff\xff\xff"),
    ],
    ids=["encrypted", "patched", "strongly encrypted", "method", "bzip2", "version", "name", "offset", "size"],
)
def test_zips_that_lie_are_refused(tmp_path, place, content):
    path = tmp_path / "val2017.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("val2017/\xff.jpg".encode("cp437", "replace").decode("cp437"), b"x")
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\1\2")
    raw[entry + place : entry + place + len(content)] = content
    raw[entry + 46] = 0xFF if place == 9 else raw[entry + 46]
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"val2017.zip is cut short or no zip file \([^\n]*\); fetch it again"):
        coco_captions_2017._open_zip(path)
