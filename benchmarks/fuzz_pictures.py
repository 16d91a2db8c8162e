"""Targets of `fuzz.py`: pictures with captions, and published sets."""

import gzip
import io
import zipfile
from collections import defaultdict
from contextlib import suppress

import numpy as np
from fuzz_target import dumped, target, written
from PIL import Image


def skipping(entries, folder, name, content):
    """Read all entries of a file that holds them."""
    from t2i_jax.data.images import Unreadable

    skipped = {}
    for entry in entries(written(folder, name, content), name, skipped):
        assert entry.captions
        assert all(caption == " ".join(caption.split()) and caption.encode() for caption in entry.captions)
        with suppress(Unreadable):
            assert isinstance(entry.read(), bytes)
    assert all(name.isprintable() for names in skipped.values() for name in names)


def picture(format_="PNG", mode="RGB", side=9) -> bytes:
    content = io.BytesIO()
    Image.new(mode, (side, side), 3 if mode in ("I;16", "L", "P") else "red").save(content, format_)
    return content.getvalue()


def tar_seeds():
    from published import tar

    members = {"a/1.png": picture(), "a/1.txt": b"one\ntwo", "2.jpg": b"x", "2.json": b'{"caption": ["three"]}'}
    return [tar(members)[:5120], tar({"1.png": b"x", "x" * 150: b"y"})[:4096]]


def resummed(content: bytes) -> bytes:
    """Every block of a tar that looks like a header gets the checksum that it needs."""
    content = bytearray(content)
    for start in range(0, len(content) - 511, 512):
        block = content[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(content)


@target("webdataset tar", "data.shards", tar_seeds)
def _(content, folder):
    from t2i_jax.data import shards

    skipping(shards.tar_entries, folder, "a.tar", resummed(content))


def parquet_seeds():
    import pyarrow
    import pyarrow.parquet

    found = []
    for images, captions in (([b"x", b"y"], ["one", "two"]), ([{"bytes": b"x"}], [["one", "two"]])):
        content = io.BytesIO()
        table = pyarrow.table({"image": images, "caption": captions})
        pyarrow.parquet.write_table(table, content, compression="none", write_statistics=False, store_schema=False)
        found.append(content.getvalue())
    return found


@target("parquet", "data.shards", parquet_seeds)
def _(content, folder):
    from t2i_jax.data import shards

    skipping(shards.parquet_entries, folder, "a.parquet", content)


def captions_in(list_):
    """Entries of a folder with a list of captions."""

    def read(content, folder):
        from t2i_jax.data import entries

        (folder / "b").mkdir()
        written(folder, "1.png", b"x")
        written(folder / "b", "é.jpg", b"y")
        skipping(lambda path, name, skipped: entries.entries(path.parent, skipped), folder, list_, content)

    return read


ROWS = [{"file": "1.png", "caption": "one"}, {"file_name": "b/é.jpg", "captions": ["two", "three"]}]
target("captions.jsonl", "data.layouts", lambda: [b"\n".join(dumped(*ROWS)), *dumped(*ROWS)], json=True)(
    captions_in("captions.jsonl")
)
target("captions.csv", "data.layouts", lambda: ['file,caption\n1.png,one\nb/é.jpg,"two, 3"\n'.encode()])(
    captions_in("captions.csv")
)
target("captions beside", "data.layouts", lambda: ["one\ntwo é\n".encode()])(captions_in("1.txt"))


def picture_seeds():
    found = []
    for format_ in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"):
        for mode in ("RGB", "RGBA", "L", "P", "I;16"):
            with suppress(OSError, KeyError, ValueError):
                found.append(picture(format_, mode))
    return found


@target("pictures", "data.images", picture_seeds)
def _(content, folder):
    from t2i_jax.data import images

    decoded = images.decode(content)
    assert decoded.mode == "RGB"
    assert min(decoded.size) >= images.MIN_SIDE
    if decoded.width * decoded.height < 10**6:
        assert images.crop(decoded, (8, 12)).shape == (8, 12, 3)


# --- published sets


def idx_seeds():
    from published import idx

    raw = idx(np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28))
    return [raw, gzip.compress(raw), idx(np.arange(2, dtype=np.uint8)), gzip.compress(bytes(99))]


@target("idx", "data.originals", idx_seeds)
def _(content, folder):
    from published import idx

    from t2i_jax.data import originals
    from t2i_jax.data.sources.mnist import Mnist

    kind = () if content[3:4] == b"\1" else (28, 28)
    path = written(folder, "file", content)
    array = originals.read_idx(path, kind)
    assert idx(array) == originals.read(path)
    if kind == ():
        list(originals.examples(path, np.zeros((len(array), 28, 28)), array, Mnist.CAPTIONS))


def cifar_seeds():
    from published import binary, pickled, pickled_by_python_2, tar

    pair = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072), np.array([1, 2], np.uint8)
    own = [binary(*pair), pickled(*pair), pickled_by_python_2(*pair)]
    return own + [tar({"data_batch_1": raw})[: 1024 + 512 * 14] for raw in own]


@target("cifar10", "data.sources.cifar10", cifar_seeds)
def _(content, folder):
    from t2i_jax.data import originals
    from t2i_jax.data.sources import cifar10

    if content[257:262] == b"ustar":
        path = written(folder, "cifar.tar", resummed(content))
        content = originals.read_tar(path, ["data_batch_1"])["data_batch_1"]
    parse = cifar10.parse_pickle if content[:1] == b"\x80" else cifar10.parse_binary
    pixels, labels = parse("it", content)
    assert len(pixels) == len(labels)
    list(originals.examples(folder, pixels, labels, cifar10.CAPTIONS))


def coco_seeds():
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}]
    captions = [{"id": 5, "image_id": 1, "caption": "one \n two"}, {"id": 6, "image_id": 2, "caption": "é"}]
    return dumped({"info": {}, "images": images, "annotations": captions})


def read_coco(root, part):
    from t2i_jax.data.sources import coco_captions_2017 as coco

    skipped = defaultdict(list)
    names, captions = coco._read_annotations(root, "train2017", skipped)
    assert all(caption.encode() for own in captions.values() for caption in own)
    for number, name in list(names.items())[:8]:
        assert -(2**63) <= number < 2**63  # it is kept as int64
        coco._load((root / part).joinpath(name), 8)


@target("coco annotations", "data.sources.coco_captions_2017", coco_seeds, json=True)
def _(content, folder):
    for part in ("annotations", "train2017"):
        (folder / part).mkdir()
    written(folder / "train2017", "1.jpg", picture("JPEG"))
    written(folder / "annotations", "captions_train2017.json", content)
    read_coco(folder, "train2017")


def coco_zip_seeds():
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as archive:
            archive.writestr("annotations/captions_train2017.json", coco_seeds()[0])
            archive.writestr("train2017/1.jpg", picture("JPEG"))
        found.append(content.getvalue())
    return found


@target("coco zip", "data.sources.coco_captions_2017", coco_zip_seeds)
def _(content, folder):
    from t2i_jax.data.sources import coco_captions_2017 as coco

    root = coco._open_zip(written(folder, "annotations.zip", content))
    read_coco(root, "train2017")
