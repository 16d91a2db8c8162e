"""Folders, tars and parquet files that are nearly right: read, named or refused, never silently shortened."""

import io
import json
import tarfile
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import encoded, noise

from t2i_jax.data import entries, shards
from t2i_jax.errors import UserError

PICTURE = encoded(noise(1))
MEMBERS = [(f"{i}.{kind}", data) for i in range(3) for kind, data in (("png", PICTURE), ("txt", b"a"))]


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "own"
    (folder / "apples").mkdir(parents=True)
    (folder / "apples" / "a.png").write_bytes(PICTURE)
    return folder


@pytest.fixture
def tar(tmp_path):
    """A tar of three pictures with captions, and where its headers and its end begin."""
    path, headers = tmp_path / "x.tar", []
    with tarfile.open(path, "w") as opened:
        for name, content in MEMBERS:
            headers.append(opened.offset)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
        headers.append(opened.offset)
    return path, headers


def read(path):
    skipped = {}
    return {entry.name: entry.captions for entry in entries.entries(path, skipped)}, skipped


def test_a_tar_with_a_damaged_header(tar):
    path, headers = tar
    content = bytearray(path.read_bytes())
    content[headers[2] + 10] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x.tar is cut short or no tar \(no end after 2 members\); fetch it again"):
        read(path)


@pytest.mark.parametrize("member", [2, 6])
@pytest.mark.parametrize("more", [0, 100])
def test_a_tar_that_is_cut_at_a_header(tar, member, more):
    path, headers = tar
    path.write_bytes(path.read_bytes()[: headers[member] + more])
    with pytest.raises(UserError, match=r"x.tar is cut short or no tar"):
        read(path)


def test_a_sparse_member_of_a_tar_does_not_fill_the_memory(tar):
    """Its header says how large it becomes; such a file of 20 KB would be read as one of 500 MB."""
    path, _ = tar
    header = bytearray(tarfile.TarInfo("3.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % (500 << 20)
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w") as opened:
        info = tarfile.TarInfo("3.txt")
        info.size = 1
        opened.addfile(info, io.BytesIO(b"a"))
    end = tar[1][-1]
    path.write_bytes(path.read_bytes()[:end] + bytes(header) + text.getvalue())
    found, skipped = read(path)
    assert list(found) == [f"x.tar/{i}.png" for i in range(3)]
    assert skipped == {"of text without a picture": ["x.tar/3"]}


def test_a_row_of_parquet_that_is_too_large(own, monkeypatch):
    monkeypatch.setattr(shards, "MAX_BYTES", len(PICTURE))
    pq.write_table(pa.table({"image": [PICTURE, PICTURE + b"."], "text": ["a", "b"]}), own / "x.parquet")
    found, skipped = read(own / "x.parquet")
    assert found == {"x.parquet, row 0": ["a"]}
    assert skipped == {shards.TOO_LARGE: ["x.parquet, row 1"]}


def test_a_link_to_itself(own):
    (own / "loop").symlink_to(own / "loop")
    assert read(own) == ({"apples/a.png": ["apples"]}, {"that is no file": ["loop"]})


def test_a_list_in_a_sub_folder_is_not_passed_over(own):
    (own / "apples" / "metadata.csv").write_text("file_name,text\na.png,an apple\n")
    with pytest.raises(UserError, match=r"captions in apples/metadata.csv; name the folder .*own/apples"):
        read(own)
    assert read(own / "apples")[0] == {"a.png": ["an apple"]}


def test_a_text_beside_what_is_no_picture_does_not_change_the_layout(own):
    for name in ("README.md", "README.txt"):
        (own / name).write_text("about these pictures")
    assert read(own)[0] == {"apples/a.png": ["apples"]}


def test_names_with_letters_taken_apart(own):
    apart = unicodedata.normalize("NFD", "café.png")
    (own / apart).write_bytes(PICTURE)
    (own / "captions.jsonl").write_text(json.dumps({"file": "café.png", "caption": "coffee"}))
    assert read(own)[0] == {apart: ["coffee"]}


def header(name="3.png", kind=tarfile.REGTYPE, size=0):
    """A header of a member whose size is any whole number; those below zero are written in base 256."""
    raw = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    raw[156:157], raw[124:136] = kind, (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    raw[148:156] = b"%06o\0 " % (256 + sum(raw[:148]) + sum(raw[156:]))
    return bytes(raw)


def pax(text):
    return header("pax", tarfile.XHDTYPE, len(text)) + text.ljust(512, b"\0") + header()


@pytest.mark.parametrize(
    "more",
    [
        header(size=-512),  # some versions of tarfile read it for ever
        header(kind=tarfile.GNUTYPE_LONGNAME, size=2**80),
        header(kind=tarfile.GNUTYPE_LONGNAME, size=2**62),
        pax(b"22 GNU.sparse.map=1,x\n"),
        pax(b"99999999999999999999999 a=b\n"),
        (header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 2) + b"a".ljust(512, b"\0")) * 2000,
    ],
    ids=["back", "long", "memory", "sparse", "pax", "deep"],
)
def test_headers_of_a_tar_that_lie(tar, more):
    path, headers = tar
    content = path.read_bytes()
    path.write_bytes(content[: headers[-1]] + more + content[headers[-1] :])
    with pytest.raises(UserError, match=r"x.tar is cut short or no tar \([^\n]*\); fetch it again"):
        read(path)


def captioned(caption):
    return pa.table({"image": [PICTURE], "caption": caption})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            captioned(pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffa"))),
            "utf-8",
        ),
        (captioned(pa.StructArray.from_arrays([pa.array(["a"])] * 2, ["x", "x"])), "duplicate field names"),
        (captioned(pa.array([0], pa.timestamp("s", "No/Where"))), "No/Where"),
    ],
    ids=["text", "twice", "zone"],
)
def test_values_of_parquet_that_python_does_not_take(own, table, said):
    pq.write_table(table, own / "b.parquet")
    with pytest.raises(UserError, match=r"b.parquet cannot be read as parquet \([^\n]*\); fetch it again") as error:
        read(own)
    assert said in str(error.value)
