"""Standard output, which others may close or read in ASCII: results never depend on it."""

import os
import sys
from contextlib import contextmanager, redirect_stdout, suppress


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
