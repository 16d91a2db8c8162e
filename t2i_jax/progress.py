"""Bars on a terminal and in notebooks; in files and pipes a plain line now and then. TQDM_DISABLE=1: neither."""

import sys
import time
import warnings

from tqdm import TqdmWarning, tqdm

EVERY = 30.0  # seconds between two lines


class _Lines(tqdm):
    """A bar of which a line is written every `EVERY` seconds, and at its end."""

    def __init__(self, *args, **kwargs):
        self._said = time.monotonic()
        super().__init__(*args, ncols=0, leave=False, **kwargs)

    def display(self, msg=None, pos=None) -> bool:
        del pos
        if msg is None and time.monotonic() - self._said >= EVERY:
            self._say()
        return False

    def clear(self, nolock=False) -> None:
        """Nothing: what is written stays."""

    def close(self) -> None:
        if not self.disable:
            self._say()
        super().close()

    def _say(self):
        self._said = time.monotonic()
        self.fp.write(f"{self}\n")
        self.fp.flush()


def bar(iterable=None, desc: str = "", total: int | None = None, *, hidden: bool = False, **options) -> tqdm:
    """A tqdm on stderr.

    Args:
      iterable, desc, total: as tqdm's.
      hidden: show nothing.
      **options: of tqdm, such as `unit` and `initial`.
    """
    kind = _notebook_bar() if _in_notebook() else tqdm if sys.stderr.isatty() else _Lines
    # Given, even as False, `disable` would overrule the environment.
    return kind(iterable, desc, total, file=sys.stderr, **options, **({"disable": True} if hidden else {}))


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")


def _notebook_bar() -> type[tqdm]:
    """A widget where ipywidgets are there, else letters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # of widgets that are not there
        from tqdm.auto import tqdm as bar
    return bar
