"""Every way in which people keep pictures with captions is read; what is broken or hostile is refused or named."""

import io
import json
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import encoded, noise

from t2i_jax.data import entries, shards
from t2i_jax.errors import UserError

PICTURE = encoded(noise(1))


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def write(folder, *names, content=PICTURE):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read(path):
    """Captions by name, and what was skipped; every content can be read."""
    skipped, found = {}, {}
    for entry in entries.entries(path, skipped):
        assert isinstance(entry.read(), bytes)
        found[entry.name] = entry.captions
    return found, skipped


def test_a_list_of_json_lines(own):
    write(own, "a.png", "sub/b.png", "c.png", "d.png")
    rows = [
        {"file": "a.png", "caption": "  an\tapple\n "},
        {"file": "a.png", "caption": "a fruit"},
        {"file_name": "sub\\b.png", "captions": ["a bee", "an insect", "", None]},
        {"file": "./c.png", "text": "a cat"},
        {"file": "a.png", "caption": "a fruit"},
        ["no object"],
        {"file": "c.png", "caption": 3},
        {"file": "e.png", "caption": "not there"},
    ]
    lines = "\r\n".join(map(json.dumps, rows)) + "\r\n\r\n{broken\r\n" + "[" * 100_000
    (own / "captions.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    found, skipped = read(own)
    assert found == {"a.png": ["an apple", "a fruit"], "c.png": ["a cat"], "sub/b.png": ["a bee", "an insect"]}
    assert skipped == {
        "row without a file and a caption": [f"captions.jsonl, line {line}" for line in (6, 7, 10, 11)],
        "row that names a missing file": ["captions.jsonl, line 8"],
        "without a caption": ["d.png"],
    }


@pytest.mark.parametrize("name", ["captions.csv", "metadata.csv"])
def test_a_list_of_comma_separated_values(own, name):
    write(own, "a.png", "ü.png", "c.png", "d.png")
    rows = ["File, Caption,note", 'a.png, "an apple, red",1', "ü.png,über,2", "c.png,a cat, and more,3", "d.png"]
    (own / name).write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    found, skipped = read(own)
    assert found == {"a.png": ["an apple, red"], "ü.png": ["über"]}
    assert skipped == {
        "row without a file and a caption": [f"{name}, line 4", f"{name}, line 5"],  # a comma without quotes
        "without a caption": ["c.png", "d.png"],
    }


def test_texts_beside_the_pictures(own):
    write(own, "a.png", "sub/b.jpeg", "c.png", "d.png")
    (own / "a.txt").write_bytes(b"\xef\xbb\xbfan apple\r\n\r\na fruit\r\n")
    (own / "sub" / "b.TXT").write_text("a bee")
    (own / "d.txt").write_text(" \n")
    (own / "e.txt").write_text("alone")
    found, skipped = read(own)
    assert found == {"a.png": ["an apple", "a fruit"], "sub/b.jpeg": ["a bee"]}
    assert skipped == {"without a caption": ["c.png", "d.png"], "of text without a picture": ["e.txt"]}


def test_names_of_sub_folders(own):
    write(own, "red_apples/1.png", "animals/a cat/2.png", "3.png", ".hidden/4.png", "red_apples/.5.png")
    found, skipped = read(own)
    assert found == {"animals/a cat/2.png": ["a cat"], "red_apples/1.png": ["red apples"]}
    assert skipped == {"without a caption": ["3.png"]}


def write_tar(path, members, **kinds):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, (kind, target) in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)


MEMBERS = {
    "0/a.json": b'{"caption": "not this one"}',
    "0/a.cls": b"7",
    "0/a.jpg": PICTURE,
    "0/a.txt": b"an apple",
    "b.json": b'{"captions": ["a bee", "an insect"]}',
    "b.PNG": PICTURE,
    "c.json": b"[",
    "c.png": PICTURE,
    "d.txt": b"alone",
    "../../e.png": PICTURE,
    "../../e.txt": b"not a path",
    "._f.png": PICTURE,
}


@pytest.mark.parametrize("inside", [False, True])
def test_a_webdataset(own, inside):
    secret = own.parent / "secret.png"
    secret.write_bytes(PICTURE)
    links = {"g.png": (tarfile.SYMTYPE, str(secret)), "h.png": (tarfile.LNKTYPE, "b.PNG")}
    write_tar(own / "x.tar", MEMBERS | {"g.txt": b"a link", "h.txt": b"a link"}, **links)
    found, skipped = read(own if inside else own / "x.tar")
    assert found == {
        "x.tar/0/a.jpg": ["an apple"],
        "x.tar/b.png": ["a bee", "an insect"],
        "x.tar/../../e.png": ["not a path"],
    }
    assert skipped == {
        "without a caption": ["x.tar/c.png"],
        "of text without a picture": ["x.tar/d", "x.tar/g", "x.tar/h"],
    }


@pytest.mark.parametrize("text", [["an apple", "a bee", None], [["an apple"], ["a bee", "an insect"], []]])
@pytest.mark.parametrize("struct", [False, True])
def test_a_parquet_file(own, text, struct, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", 2)
    pictures = [PICTURE, encoded(noise(2)), PICTURE]
    column = [{"bytes": content, "path": "x.png"} for content in pictures] if struct else pictures
    if struct:
        column.append({"bytes": None, "path": "/etc/passwd"})
        text = [*text, text[0]]
    pq.write_table(pa.table({"image": column, "text": text, "width": [40] * len(text)}), own / "x.parquet")
    found, skipped = read(own / "x.parquet")
    assert list(found.values()) == [["an apple"], ["a bee"] if text[1] == "a bee" else ["a bee", "an insect"]]
    assert skipped["without a caption"] == ["x.parquet, row 2"]
    assert skipped.get("without bytes of a picture") == (["x.parquet, row 3"] if struct else None)


def test_nothing_outside_is_read(own):
    write(own, "a.png", "sub/b.png")
    write(own.parent, "secret.png", "outside/c.png")
    (own / "link.png").symlink_to(own.parent / "secret.png")
    (own / "broken.png").symlink_to(own / "nothing.png")
    (own / "twice.png").symlink_to(own / "a.png")
    (own / "folder").symlink_to(own.parent / "outside")
    (own / "circle").symlink_to(own)
    os.mkfifo(own / "pipe.png")  # reading it would wait for ever
    names = ["../secret.png", str(own.parent / "secret.png"), "sub/../../secret.png", "link.png", "folder/c.png"]
    rows = [{"file": name, "caption": "secret"} for name in names]
    rows += [{"file": name, "caption": name} for name in ("sub/../a.png", "sub/b.png", "twice.png", "circle/a.png")]
    (own / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found, skipped = read(own)
    assert found == {"a.png": ["sub/../a.png"], "sub/b.png": ["sub/b.png"], "twice.png": ["twice.png"]}
    assert {reason: sorted(names) for reason, names in skipped.items()} == {
        "that links to the outside": ["folder", "link.png"],
        "that is no file": ["broken.png", "circle", "pipe.png"],
        "row that names a file outside": [f"captions.jsonl, line {line}" for line in (1, 2, 3)],
        "row that names a missing file": [f"captions.jsonl, line {line}" for line in (4, 5, 9)],
    }


def test_a_folder_that_is_a_link_itself_is_read(own):
    write(own, "apples/a.png")
    (own.parent / "link").symlink_to(own)
    assert read(own.parent / "link")[0] == {"apples/a.png": ["apples"]}


def test_names_and_captions_that_would_disturb_a_terminal(own):
    write(own, "b/\x1b[2J.png", content=b"")
    with open(os.fsencode(own) + b"/b/\xff.png", "wb") as opened:
        opened.write(b"")
    write(own, "\x1b[2J.png")
    found, skipped = read(own)
    assert len(found) == 2
    assert skipped == {"without a caption": [r"'\x1b[2J.png'"]}
    assert len(entries.digest_of(own)) == 64
    (own / "captions.jsonl").write_text(r'{"file": "b/\u001b[2J.png", "caption": "half \ud83d a sign"}')
    assert read(own)[0] == {"b/\x1b[2J.png": ["half ? a sign"]}


def test_a_picture_of_gigabytes_is_not_read(own, monkeypatch):
    write(own, "apples/a.png", "apples/b.png")
    with (own / "apples" / "b.png").open("r+b") as sparse:
        sparse.truncate(1 << 40)
    skipped = {}
    found = entries.pictures_of(own, skipped)
    assert list(found) == ["apples/a.png"]
    assert skipped["above 512 MiB"] == ["apples/b.png"]
    before = entries.digest_of(own)
    os.truncate(own / "apples" / "b.png", 1 << 41)
    assert entries.digest_of(own) != before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "captions.csv",
            b"file,caption\na.png,caf\xe9\n",
            "captions.csv is not UTF-8 (byte 0xe9 at 22); save it as",
        ),
        ("captions.jsonl", b'\xff\xfe{\x00"\x00', "captions.jsonl is not UTF-8 (byte 0xff at 0); save it as UTF-8"),
        (
            "captions.csv",
            b"file;caption\na.png;an apple\n",
            "no column file or file_name, but 'file;caption'; name",
        ),
        (
            "captions.csv",
            b"file,words\n",
            "has no column caption or captions or text, but 'file', 'words'; name it",
        ),
        ("captions.csv", b"", "captions.csv has no column file or file_name, but none; name it so"),
        (
            "captions.csv",
            b"file,caption\n" + b"x" * 200_000,
            "captions.csv, after line 1: field larger than field limit",
        ),
        ("a.txt", b"caf\xe9", "a.txt is not UTF-8 (byte 0xe9 at 3); save it as UTF-8"),
        ("x.tar", b"\x1f\x8b" + b"\0" * 600, "x.tar is cut short or no tar ("),
        ("x.parquet", b"PAR1" + b"\0" * 600, "x.parquet cannot be read as parquet ("),
        ("x.parquet", b"", "x.parquet cannot be read as parquet ("),
    ],
)
def test_a_file_of_captions_that_cannot_be_read_is_an_error_of_one_line(own, name, content, said):
    write(own, "a.png")
    (own / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read(own)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_other_mistakes(own):
    write(own, "a.png")
    with pytest.raises(UserError, match=r"own has no picture with a caption: 1 without a caption \(a.png\)"):
        entries.pictures_of(own, {})
    with pytest.raises(UserError, match=r"a.png is no folder, .tar or .parquet file; name one that holds pictures"):
        read(own / "a.png")
    for name in ("captions.csv", "metadata.jsonl"):
        (own / name).write_text("")
    with pytest.raises(UserError, match=r"own has captions.csv and metadata.jsonl; keep one of them"):
        read(own)
    pq.write_table(pa.table({"pixels": [b""], "text": ["a"]}), own.parent / "x.parquet")
    with pytest.raises(UserError, match=r"x.parquet has columns pixels, text; it needs image or picture or .* and"):
        read(own.parent / "x.parquet")


def test_a_tar_that_is_cut_short_is_refused(own):
    write_tar(own / "x.tar", {"a.txt": b"an apple", "a.png": PICTURE})
    whole = (own / "x.tar").read_bytes()
    (own / "x.tar").write_bytes(whole[: whole.index(b"a.png") + 600])
    with pytest.raises(UserError, match=r"x.tar is cut short or no tar \(unexpected end of data\); fetch it again"):
        read(own / "x.tar")
