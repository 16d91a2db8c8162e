"""Small sets in the formats that MNIST's and CIFAR10's authors published them in."""

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

from t2i_jax.data.sources import cifar10, fashion_mnist

CAPTIONS = {"mnist": tuple("0123456789"), "fashion_mnist": fashion_mnist.CAPTIONS, "cifar10": cifar10.CAPTIONS}
COUNTS = {"train": 20, "test": 10}


def pictures(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Made-up pictures and labels, each class among them."""
    count = COUNTS[split]
    rng = np.random.default_rng([len(name), count])
    shape = (32, 32, 3) if name == "cifar10" else (28, 28, 1)
    return rng.integers(0, 256, (count, *shape), np.uint8), rng.permutation(count).astype(np.uint8) % 10


def idx(array: np.ndarray) -> bytes:
    """MNIST's format: magic number, sizes, bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(data_dir: Path, name: str = "mnist", zipped: bool = False, pictures=pictures) -> Path:
    """The four files of `pictures(name, split)`; returns their folder."""
    folder = data_dir / "downloads" / "manual" / name
    folder.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = pictures(name, split)
        for kind, array in (("images-idx3", images[..., 0]), ("labels-idx1", labels)):
            path = folder / f"{prefix}-{kind}-ubyte"
            if zipped:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                path.write_bytes(idx(array))
    return folder


def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """CIFAR10's batches by name: pixels [n, 3072], as its files have them, and labels."""
    found = {}
    for split, names in cifar10.SPLITS.items():
        images, labels = pictures("cifar10", split)
        pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        parts = zip(np.split(pixels, len(names)), np.split(labels, len(names)), strict=True)
        found |= dict(zip(names, parts, strict=True))
    return found


def binary(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None], pixels], 1).tobytes()


def pickled(pixels: np.ndarray, labels: np.ndarray, protocol: int = 2) -> bytes:
    """As Python 3 writes it."""
    batch = {"batch_label": "a batch", "labels": labels.tolist(), "data": pixels, "filenames": ["data", "b.png"]}
    return pickle.dumps(batch, protocol)


def pickled_by_python_2(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """As the real files are: strings of bytes, each kept in the memo, and numpy's old names."""
    memo = iter(range(256))

    def keep(content):
        return content + b"q" + bytes([next(memo)])

    def short(text):
        return keep(b"U" + bytes([len(text)]) + text)

    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    rows, columns = (b"M" + struct.pack("<H", size) for size in pixels.shape)
    raw = pixels.tobytes()
    array = keep(b"cnumpy.core.multiarray\n_reconstruct\n") + keep(b"cnumpy\nndarray\n") + b"K\0\x85" + short(b"b")
    array += b"\x87R(K\1" + rows + columns + b"\x86" + keep(b"cnumpy\ndtype\n") + short(b"u1") + b"K\0K\1\x87R"
    array += b"(K\3" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T"
    array += struct.pack("<i", len(raw)) + raw + b"tb"
    pairs = short(b"batch_label") + short(b"training batch 1 of 5") + short(b"labels")
    pairs += keep(b"]") + b"(" + numbers + b"e" + short(b"data") + array
    pairs += short(b"filenames") + keep(b"]") + b"(" + short(b"camion_s_000148.png") + b"e"
    return b"\x80\2" + keep(b"}") + b"(" + pairs + b"u."


FORMS = {
    "binary": ("cifar-10-batches-bin", ".bin", binary),
    "python 2": ("cifar-10-batches-py", "", pickled_by_python_2),
    "python 3": ("cifar-10-batches-py", "", pickled),
    "protocol 5": ("cifar-10-batches-py", "", lambda *batch: pickled(*batch, protocol=5)),
}


def contents(form: str) -> dict[str, bytes]:
    """CIFAR10's files, by their paths in the archive."""
    folder, suffix, write = FORMS[form]
    return {f"{folder}/{name}{suffix}": write(*batch) for name, batch in batches().items()}


def write_cifar(data_dir: Path, form: str = "binary", packed: bool = False, files: dict | None = None) -> None:
    """CIFAR10's files, or the archive of them; `files` in place of `contents(form)`."""
    manual, files = data_dir / "downloads" / "manual", files or contents(form)
    manual.mkdir(parents=True, exist_ok=True)
    if packed:
        archive = "cifar-10-binary.tar.gz" if form == "binary" else "cifar-10-python.tar.gz"
        (manual / archive).write_bytes(gzip.compress(tar(files)))
        return
    for path, content in files.items():
        (manual / path).parent.mkdir(exist_ok=True)
        (manual / path).write_bytes(content)


def tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()
