"""Code blocks of Markdown pages, and the commands in those of a shell."""

import re
import shlex
from typing import NamedTuple

BLOCK = re.compile(r"(?:^<!-- not run: (.+?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INNER = re.compile(r"\$\(.*\)")  # a command within a command
VARIABLE = re.compile(r"^(\w+)=(\S*)$", re.DOTALL)


class Block(NamedTuple):
    """A fenced block: `language` is what stands after its fence, `marked` why its page says it is not run."""

    marked: str
    language: str
    code: str


def blocks(text: str) -> list[Block]:
    """Every fenced block of a page, in order."""
    return [Block(*found) for found in BLOCK.findall(text)]


def commands(code: str) -> list[tuple[str, list[str]]]:
    """Each command of a shell's block: as it stands there, and its words.

    Comments, assignments and what stands in `$(...)` are left out; variables of the block are put in.
    """
    found, known = [], {}
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|&\s*$", line):
            expanded = re.sub(r"\$(\w+)", lambda name: known.get(name[1], name[0]), INNER.sub("INNER", part))
            words = shlex.split(expanded, comments=True)
            while words and (words[0] == "export" or VARIABLE.match(words[0]) or " " in words[0]):
                name, _, value = words.pop(0).partition("=")
                known[name] = value
            if words:
                found.append((part.strip(), words))
    return found
