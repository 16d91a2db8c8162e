"""What may become of a file."""

from pathlib import Path


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": truncate,
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": flip,
    "missing": Path.unlink,
}
