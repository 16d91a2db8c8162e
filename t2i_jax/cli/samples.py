"""Pictures of `t2i sample`, one file each: written as they are drawn, and not drawn again where they are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from t2i_jax import files
from t2i_jax.errors import UserError

AT_ONCE = 64  # pictures drawn in one call, as many as a pipeline draws at a time
RECORD = "prompts.jsonl"


class Job(NamedTuple):
    """Some pictures of some prompts: `num` of each of the prompts `numbers`, from index `first` on."""

    numbers: list[int]
    first: int
    num: int


def names(prompts: int, num: int) -> list[list[str]]:
    """Names of the files of each prompt."""
    return [[f"{p:05d}_{i:02d}.png" for i in range(num)] for p in range(prompts)]


def jobs(missing: list[set[int]], num: int, candidates: int | None = None) -> Iterator[Job]:
    """What is to be drawn, in order.

    Args:
      missing: of each prompt the indices, below `num`, of the pictures that are not there.
      num: pictures of each prompt.
      candidates: of each prompt, where the best of these are kept.
    """
    lacking = [number for number, indices in enumerate(missing) if indices]
    if num > AT_ONCE and candidates is None:
        for number in lacking:
            for first in range(0, num, AT_ONCE):
                if any(first <= index < first + AT_ONCE for index in missing[number]):
                    yield Job([number], first, min(AT_ONCE, num - first))
        return
    together = max(1, AT_ONCE // (candidates or num))
    for start in range(0, len(lacking), together):
        yield Job(lacking[start : start + together], 0, num)


class Samples:
    """Pictures in a folder, each of which says in itself how it was made, and the record of all.

    Args:
      out: the folder; it is made.
      notes: of each prompt, how each of its pictures is made; names are those of `names`.
      settings: of all, for the record.
      overwrite: replace pictures that were made otherwise.

    Raises:
      UserError: the folder holds a picture under one of the names that was made otherwise.
    """

    def __init__(self, out: Path, notes: list[list[dict]], settings: dict, *, overwrite: bool = False):
        self.out, self.notes, self.settings, self.record = out, notes, settings, out / RECORD
        self.names = names(len(notes), len(notes[0]))
        out.mkdir(parents=True, exist_ok=True)
        self.missing = [
            {i for i, name in enumerate(own) if not is_made(out / name, notes[p][i], overwrite=overwrite)}
            for p, own in enumerate(self.names)
        ]
        self._write_record()

    def put(self, job: Job, images) -> None:
        """Write what was drawn; `images` uint8 [P, n, H, W, C]."""
        from t2i_jax.pictures import to_image, to_png

        for number, pictures in zip(job.numbers, images, strict=True):
            for index, picture in enumerate(pictures, start=job.first):
                path = self.out / self.names[number][index]
                files.write_atomically(path, to_png(to_image(picture), self.notes[number][index]))
                self.missing[number].discard(index)
                print(path)
            if not self.missing[number]:
                with self.record.open("ab") as record:
                    record.write(self._line(number))
        if not any(self.missing):
            self._write_record()
            print(self.record)

    def _line(self, number: int) -> bytes:
        entry = {"number": number, "prompt": self.notes[number][0]["prompt"], "files": self.names[number]}
        return (json.dumps(entry | self.settings, ensure_ascii=False) + "\n").encode()

    def _write_record(self):
        """Of the prompts whose pictures are all there, a line each; never of another command's."""
        lines = [self._line(number) for number, missing in enumerate(self.missing) if not missing]
        if lines:
            files.write_atomically(self.record, b"".join(lines))
        else:
            self.record.unlink(missing_ok=True)


def is_made(path: Path, note: dict, *, overwrite: bool) -> bool:
    """Whether a picture is there, whole, and made as a note says.

    Raises:
      UserError: it was made otherwise, and may not be overwritten.
    """
    from t2i_jax.pictures import read_note

    if not path.exists():
        return False
    found = read_note(path)
    if found == note:
        return True
    if overwrite:
        return False
    changed = [name for name in note if found and found.get(name) != note[name]]
    made = f"differs in its {changed[0]}" if changed else "was not made by this command, or is damaged"
    raise UserError(f"--out {path} {made}; name another place, or give --overwrite")
