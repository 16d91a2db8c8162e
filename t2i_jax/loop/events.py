"""Scalars of a run's event files, which `metrics.py` writes and TensorBoard reads."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

LONGEST = 4096  # bytes of a record; one number takes a few dozen, and what is longer holds a picture

Scalars = dict[str, dict[int, float]]
"""Numbers by tag and step."""


def read_scalars(folder: Path) -> tuple[Scalars, list[str]]:
    """What a run logged; of steps that were trained again, the newer numbers.

    Args:
      folder: of the run. Its events may be anyone's, damaged or still being written.

    Returns:
      All that is readable, and a line for each file that is not whole.
    """
    scalars, damaged = {}, []
    for path in sorted((folder / "logs").glob("events.out.tfevents.*")):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            try:
                for event in _events(file):
                    _take(event, scalars)
            except _Damaged as error:
                damaged.append(f"{path}: {error}; what stands before is read")
    return scalars, damaged


class _Damaged(Exception):
    """Where a file can be read no further."""


def _take(event: Event, scalars: Scalars) -> None:
    if event.session_log.status == SessionLog.START:
        for own in scalars.values():
            for step in [step for step in own if step >= event.step]:
                del own[step]
    for value in event.summary.value:
        if value.WhichOneof("value") == "simple_value":
            scalars.setdefault(value.tag, {})[event.step] = value.simple_value


def _events(file: BinaryIO) -> Iterator[Event]:
    """Events of a TFRecord file; a record is a length and its checksum, a content and its checksum."""
    size = file.seek(0, 2)
    file.seek(0)
    while header := file.read(12):
        if len(header) < 12 or struct.unpack("<I", header[8:])[0] != masked_crc32c(header[:8]):
            raise _Damaged(f"no record at byte {file.tell() - len(header)} of {size}")
        (length,) = struct.unpack("<Q", header[:8])
        if length + 4 > size - file.tell():
            raise _Damaged(f"cut off after {size} bytes")
        if length > LONGEST:
            file.seek(length + 4, 1)
            continue
        content, (checksum,) = file.read(length), struct.unpack("<I", file.read(4))
        try:
            if checksum != masked_crc32c(content):
                raise DecodeError
            yield Event.FromString(content)
        except DecodeError:
            raise _Damaged(f"no event in the record that ends at byte {file.tell()} of {size}") from None
