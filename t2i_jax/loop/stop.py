"""Ctrl-C and SIGTERM as a wish to stop."""

import os
import signal
import threading
from contextlib import contextmanager


class Stopped(Exception):
    """A signal came while something ran that may be left at once."""


class Stop:
    """Takes Ctrl-C and SIGTERM as a wish to stop after the running step; a second one stops at once.

    Attributes:
      requested: number of the signal, 0 for none.
    """

    def __init__(self):
        self.requested, self._at_once = 0, False

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()  # others get no signals
        taken = (signal.SIGINT, signal.SIGTERM) if main else ()
        self._before = {s: signal.signal(s, self._take) for s in taken}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self):
        """Raises `Stopped` in what runs within, where a signal comes or has come: nothing there must be saved."""
        if self.requested:
            raise Stopped
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _take(self, number, frame):
        self.requested = number
        for s, handler in self._before.items():
            signal.signal(s, handler)
        # Not print: a signal may come in the middle of another write to the same stream.
        os.write(2, b"\nstopping: saving after this step; once more stops at once\n")
        if self._at_once:
            raise Stopped
