"""What commands print: tables or JSON on standard output, which others may close or read in ASCII, and notices."""

import json
import os
import re
import sys
import textwrap
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

WIDTH = 80  # columns


def add_json(command) -> None:
    """Add `--json` to a command whose result is a table."""
    command.add_argument("--json", action="store_true", help="print JSON instead of the table")


def show(args, text: str, found, out=None) -> None:
    """Print a result.

    Args:
      args: of a command with `--json`, which says how.
      text: for people; longer lines than `WIDTH` are broken, and go on under their second column.
      found: the same for programs, with the names that files have.
      out: the file that was written, a line after the text.
    """
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    print("\n".join(map(_broken, text.split("\n"))))
    if out is not None:
        print(out)


def _broken(line: str) -> str:
    if len(line) <= WIDTH:
        return line
    columns = re.match(r"\s*\S+(?: \S+)*\s{2,}", line)
    indent = " " * (len(columns[0]) if columns else 2)
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


class _Stdout:
    """A stream whose writes reach their reader at once, or are dropped where nobody can read them."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
            self._stream.flush()
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            if not isinstance(error, BrokenPipeError):  # `| head` has read what it wanted
                said = error.strerror or error
                print(f"warning: standard output cannot be written ({said}); files are", file=sys.stderr)
            self._close()
        return len(text)

    def _close(self):
        """What is left in buffers would fail again when the process ends."""
        with suppress(OSError):  # no file behind it
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def to_stdout():
    """Within it, `print` neither fails nor waits."""
    with redirect_stdout(_Stdout(sys.stdout)):
        yield


@contextmanager
def quiet():
    """Within it, neither bars nor notices are shown; an error that leaves it is the caller's to print."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
        yield
