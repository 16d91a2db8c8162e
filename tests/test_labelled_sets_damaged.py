"""Published files that are cut, damaged or hostile: one line that names them, and nothing is prepared."""

import gzip
import os
import pickle
import struct
import tarfile

import pytest
from damage import truncate
from published import batches, contents, idx, pictures, tar, write_cifar, write_idx

from t2i_jax.data import originals
from t2i_jax.data.sources import open_split
from t2i_jax.errors import UserError

IMAGES, LABELS = (pictures("mnist", "train")[0][..., 0], pictures("mnist", "train")[1])
HUGE = 2**32 - 1


def refusal(name, data_dir):
    """Why a set cannot be prepared."""
    with pytest.raises(UserError) as error:
        open_split({"name": name, "data_dir": str(data_dir)}, "train")
    assert "\n" not in str(error.value)
    assert not list((data_dir / name).glob("*/*"))
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("images-idx3", b"", "is no IDX file of bytes (it begins , not 00000803)"),
        ("images-idx3", b"\0\0\x08\3\0\0", "is no IDX file of bytes (it begins 00000803, not 00000803)"),
        ("images-idx3", b"<!DOCTYPE html>" * 9, "is no IDX file of bytes (it begins 3c21444f, not 00000803)"),
        ("images-idx3", b"\0\0\x0d\3" + idx(IMAGES)[4:], "it begins 00000d03, not 00000803"),
        ("images-idx3", idx(LABELS), "it begins 00000801, not 00000803"),
        ("images-idx3", idx(IMAGES)[:-1], "declares 20 x 28 x 28 bytes and has 15,679; n x 28 x 28 are needed"),
        ("images-idx3", idx(IMAGES) + b"\0", "declares 20 x 28 x 28 bytes and has 15,681"),
        ("images-idx3", idx(IMAGES[:, 1:]), "declares 20 x 27 x 28 bytes and has 15,120; n x 28 x 28 are needed"),
        ("images-idx3", idx(IMAGES[:0]), "declares 0 x 28 x 28 bytes and has 0"),
        (
            "images-idx3",
            struct.pack(">HBB3I", 0, 8, 3, HUGE, 28, 28) + bytes(784),
            "declares 4294967295 x 28 x 28 bytes and has 784",
        ),
        (
            "images-idx3",
            struct.pack(">HBB3I", 0, 8, 3, HUGE, HUGE, HUGE) + bytes(784),
            "declares 4294967295 x 4294967295 x 4294967295 bytes",
        ),
        ("images-idx3", idx(IMAGES[:19]), "has 20 labels for 19 pictures; fetch both again"),
        ("labels-idx1", idx(LABELS[:19]), "has 19 labels for 20 pictures"),
        ("labels-idx1", idx(LABELS + 1), "has label 10; the classes are 0 to 9, fetch it again"),
        ("labels-idx1", idx(LABELS)[:-3], "declares 20 bytes and has 17; n are needed, fetch it again"),
    ],
)
def test_idx_files(tmp_path, kind, content, said):
    path = write_idx(tmp_path) / f"train-{kind}-ubyte"
    path.write_bytes(content)
    line = refusal("mnist", tmp_path)
    assert said in line
    assert str(path) in line or "fetch both" in line


@pytest.mark.parametrize("part", ["header", "half", "checksum", "flipped"])
def test_gzipped_files_that_are_cut(tmp_path, part):
    path = write_idx(tmp_path, zipped=True) / "t10k-images-idx3-ubyte.gz"  # the last one to be read but one
    content = bytearray(path.read_bytes())
    if part == "flipped":
        content[-6] ^= 1  # of the checksum
    path.write_bytes(content[: {"header": 5, "half": len(content) // 2, "checksum": -8}.get(part)])
    assert refusal("mnist", tmp_path).startswith(f"{path} cannot be read (")


def test_a_file_that_is_larger_than_it_looks(tmp_path, monkeypatch):
    monkeypatch.setattr(originals, "LIMIT", 100_000)
    path = write_idx(tmp_path, zipped=True) / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(10**8)))
    assert refusal("mnist", tmp_path).startswith(f"{path} holds more than 100,000 bytes")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("form", "name", "damage", "said"),
    [
        ("binary", "data_batch_3.bin", lambda raw: raw[:-1], "has 12,291 bytes, no multiple of 3,073"),
        ("binary", "test_batch.bin", lambda raw: b"", "has 0 bytes, no multiple of 3,073"),
        ("binary", "data_batch_1.bin", lambda raw: b"\x0b" + raw[1:], "has label 11; the classes are 0 to 9"),
        ("python 2", "data_batch_5", lambda raw: raw[: len(raw) // 2], "is no batch of CIFAR10"),
        ("python 2", "data_batch_5", lambda raw: raw.replace(b"U\6labels", b"U\6lapels"), "has 0 labels"),
        ("python 2", "data_batch_2", lambda raw: b"", "is no batch of CIFAR10"),
        ("python 3", "data_batch_2", lambda raw: pickle.dumps({"labels": [1], "data": b"2"}), "not 3,072 a label"),
        ("python 3", "data_batch_2", lambda raw: pickle.dumps({"labels": [300]}), "is no batch of CIFAR10"),
        ("python 3", "test_batch", lambda raw: b"\x80\x02" + b"T\xff\xff\xff\x7f", "is no batch of CIFAR10"),
    ],
)
def test_batches_of_cifar10(tmp_path, form, packed, name, damage, said):
    files = {path: damage(raw) if path.endswith(f"/{name}") else raw for path, raw in contents(form).items()}
    write_cifar(tmp_path, form, packed, files)
    line = refusal("cifar10", tmp_path)
    assert said in line
    assert name in line or "label 11" in line


class Hostile:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("beside", ["alone", "in a batch"])
def test_a_pickle_is_not_run(tmp_path, beside):
    """One that holds a true batch beside what it would run is read: its instructions are not obeyed."""
    made, files = tmp_path / "made", contents("python 3")
    pixels, labels = batches()["test_batch"]
    batch = {"run": Hostile(made), "labels": labels.tolist(), "data": pixels}
    files["cifar-10-batches-py/test_batch"] = pickle.dumps(Hostile(made) if beside == "alone" else batch, 2)
    write_cifar(tmp_path, "python 3", files=files)
    if beside == "alone":
        assert "test_batch has 0 labels and 0 bytes of pixels" in refusal("cifar10", tmp_path)
    else:
        assert len(open_split({"name": "cifar10", "data_dir": str(tmp_path)}, "test")[0]) == len(labels)
    assert not made.exists()


def renamed(files):
    return tar({path.replace("test_batch", "../test_batch"): content for path, content in files.items()})


def declaring(size, kind=tarfile.REGTYPE):
    """An archive whose first file says that it has so many bytes."""

    def make(files):
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size, member.type = size, kind
        return member.tobuf() + tar(files)

    return make


def sparse(files):
    """An archive whose test batch is nothing but a hole, as GNU tar keeps them: it could be a terabyte."""
    member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    member.type, header = tarfile.GNUTYPE_SPARSE, bytearray()
    header += member.tobuf(tarfile.GNU_FORMAT)
    hole = b"%011o\0" % 2**26
    header[386:398], header[398:410], header[483:495] = hole, b"%011o\0" % 0, hole  # its end, no bytes, the size
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    del files["cifar-10-batches-bin/test_batch.bin"]
    return bytes(header) + tar(files)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda files: b"", "is damaged or no tar archive"),
        (lambda files: b"PK" + bytes(1000), "is damaged or no tar archive"),
        (lambda files: tar(files)[:20_000], "is damaged or no tar archive"),
        (lambda files: tar(dict(list(files.items())[:-1])), "lacks cifar-10-batches-bin/test_batch.bin"),
        (renamed, "lacks cifar-10-batches-bin/test_batch.bin"),
        (declaring(2**33 - 1), "is damaged or no tar archive"),
        (declaring(0, tarfile.SYMTYPE), None),
        (sparse, "lacks cifar-10-batches-bin/test_batch.bin"),
    ],
)
def test_archives_of_cifar10(tmp_path, make, said):
    files = contents("binary")
    archive = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(gzip.compress(make(files)))
    if said is None:  # a link is passed over, and the file behind it read
        assert len(open_split({"name": "cifar10", "data_dir": str(tmp_path)}, "test")[0]) == 10
    else:
        assert f"cifar-10-binary.tar.gz {said}" in refusal("cifar10", tmp_path)


def test_an_archive_that_is_cut(tmp_path):
    write_cifar(tmp_path, "python 2", packed=True)
    truncate(tmp_path / "downloads" / "manual" / "cifar-10-python.tar.gz")
    assert "cifar-10-python.tar.gz cannot be read (" in refusal("cifar10", tmp_path)


def test_an_archive_whose_members_lead_back_ends(tmp_path):
    """A size below zero: some versions of tarfile find the same member for ever."""
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" + (-512).to_bytes(11, "big", signed=True)
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    (tmp_path / "a.tar").write_bytes(tar({"a": b"b"})[:1024] + bytes(header) + bytes(1024))
    with pytest.raises(UserError, match=r"a.tar (is damaged or no tar archive|lacks b)"):
        originals.read_tar(tmp_path / "a.tar", ["b"])
