"""Sets in the files that their authors published, which people fetch themselves: read within limits, refused whole.

They lie in `DATA_DIR/downloads/manual`. All of a set's files are read and checked before a record of it is written.
"""

import gzip
import io
import math
import struct
import tarfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from t2i_jax.data import tars
from t2i_jax.errors import UserError, one_line

LIMIT = 2**28  # bytes of an unzipped file; CIFAR10's archives have 185 million


def manual(builder) -> Path:
    """The folder in which a person puts what the set of a TFDS builder is made from."""
    return Path(builder.data_dir_root, "downloads", "manual")


def read(path: Path) -> bytes:
    """The content of a file, unzipped where it is gzipped.

    Raises:
      UserError: it cannot be read, is cut short, or holds more than `LIMIT` bytes.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if zipped else nullcontext(file) as opened:
                content = opened.read(LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); fetch it again") from None
    if len(content) > LIMIT:
        raise UserError(f"{path} holds more than {LIMIT:,} bytes, as none of this set does; fetch it again")
    return content


def read_idx(path: Path, item: tuple[int, ...]) -> UInt8[np.ndarray, "n ..."]:
    """Bytes in MNIST's own format (LeCun et al., "The MNIST database"): a magic number, sizes, and the bytes.

    Args:
      path: of the file, gzipped or not.
      item: sizes of what it holds n of; () for numbers.

    Raises:
      UserError: it cannot be read, is of another kind, or its sizes are not those of what follows them.
    """
    content, magic = read(path), bytes((0, 0, 8, 1 + len(item)))
    start = 4 * (2 + len(item))
    if content[:4] != magic or len(content) < start:
        raise UserError(
            f"{path} is no IDX file of bytes (it begins {content[:4].hex()}, not {magic.hex()}); fetch it again"
        )
    sizes, left = struct.unpack_from(f">{1 + len(item)}I", content, 4), len(content) - start
    if not left or sizes[1:] != item or math.prod(sizes) != left:
        declared, asked = (" x ".join(map(str, shape)) for shape in (sizes, ("n", *item)))
        raise UserError(f"{path} declares {declared} bytes and has {left:,}; {asked} are needed, fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def read_tar(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """The files of these names in a tar archive, gzipped or not; nothing is unpacked to the disk.

    Raises:
      UserError: it cannot be read, is no such archive, or lacks one of them.
    """
    content, found = read(path), {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in tars.members(archive):
                if member.name in names and member.isreg() and not member.issparse():  # holes take memory
                    found[member.name] = archive.extractfile(member).read()
    except Exception as error:  # whatever tarfile makes of other bytes
        raise UserError(f"{path} is damaged or no tar archive ({one_line(error)}); fetch it again") from None
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{path} lacks {missing[0]}; fetch it again")
    return found


def examples(
    path: Path, images: UInt8[np.ndarray, "n H W C"], labels: UInt8[np.ndarray, " m"], captions: Sequence[str]
) -> Iterator[tuple[int, dict]]:
    """Keyed examples `{image, caption}` of pictures with class labels.

    Args:
      path: of the labels, for messages.
      images: the pictures.
      labels: of their classes.
      captions: of the classes.

    Raises:
      UserError: not as many labels as pictures, or one that is no class; before the first example.
    """
    if len(images) != len(labels):
        raise UserError(f"{path} has {len(labels):,} labels for {len(images):,} pictures; fetch both again")
    if (largest := int(labels.max())) >= len(captions):
        raise UserError(f"{path} has label {largest}; the classes are 0 to {len(captions) - 1}, fetch it again")
    pairs = enumerate(zip(images, labels, strict=True))
    return ((number, {"image": image, "caption": captions[label]}) for number, (image, label) in pairs)
