"""`t2i`: checked arguments in, files and a table out. One file a command, each with `add` and `run`.

Results go to stdout, warnings and errors to stderr. An error is one line, exit code 2. jax, numpy and PIL are
imported inside the commands, so that `t2i --help` answers at once.
"""

import argparse
import sys

from t2i_jax.cli import convert, doctor, evaluate, export, sample
from t2i_jax.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message}; see {self.prog} --help")


def build_parser():
    """The argparse parser of `t2i`; bad usage raises `UserError`."""
    parser = _Parser(prog="t2i", description="Text to image with discrete tokens.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (sample, evaluate, doctor, convert, export):
        command.add(commands)
    return parser


def main(argv=None):
    """Run `t2i` with `argv` (default: the command line); returns the exit code, 0, 2 or 130."""
    try:
        args, rest = build_parser().parse_known_args(argv)
        args.overrides = [option for option in rest if args.command == "doctor" and option.startswith("--config.")]
        if unknown := [option for option in rest if option not in args.overrides]:
            raise UserError(f"unrecognized arguments: {' '.join(unknown)}; see t2i {args.command} --help")
        args.function(args)
    except (UserError, OSError) as error:
        print("t2i:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("t2i: interrupted", file=sys.stderr)
        return 130
    return 0
