"""The one exception whose message is meant for the person at the keyboard, and what such messages are made of."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input. Its message is one line: the value, the limit and the way out.

    `train.py` and `t2i` print it to stderr without a traceback and exit with code 2; a notebook shows it alone.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {shown(self)}"]


def shown(error: BaseException, most: int = 4000) -> str:
    """What an exception says, in one line of at most so many characters, its middle left out where it has more.

    It may repeat what a stranger wrote: signs that would move a terminal's cursor stand as Python writes them.
    """
    words = " ".join(str(error).split())
    line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in words)
    if len(line) <= most:
        return line
    return f"{line[: most // 2 - 3]} ... {line[-(most // 2 - 2) :]}"  # the reason may stand at either end


def one_line(error: BaseException) -> str:
    """What an exception says, in one line of at most 300 characters; its type where it says nothing."""
    return shown(error, 300) or type(error).__name__


def near_miss(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, x the name that is most like one that is unknown; "" where none is like it."""
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else ""
