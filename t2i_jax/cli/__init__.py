"""`t2i`: checked arguments in, files and a table out. One file a command, each with `add` and `run`.

Results go to stdout, notices, warnings and errors to stderr. An error is one line, exit code 2. jax, numpy and PIL
are imported inside the commands, so that `t2i --help` answers at once.
"""

import argparse
import sys
from contextlib import nullcontext

from t2i_jax.cli import (
    compiled,
    convert,
    data,
    doctor,
    evaluate,
    export,
    failures,
    list_runs,
    memory,
    plot,
    results,
    sample,
    serve,
    sweep,
    train,
)
from t2i_jax.errors import UserError, near_miss, shown

COMMANDS = (train, sample, serve, evaluate, sweep, list_runs, plot, data, doctor, convert, export)
OVERRIDES = ("--config.", "--noconfig.")  # of fields of a config
WITH_OVERRIDES = ("train", "doctor")


class _Parser(argparse.ArgumentParser):
    """Of `t2i` and, as argparse makes these of its kind, of every command."""

    def __init__(self, **options):
        super().__init__(**options)
        self.add_argument(
            "--quiet", action="store_true", default=argparse.SUPPRESS, help="no bars, no notices: errors alone"
        )

    def error(self, message):
        raise UserError(f"{message}; see {self.prog} --help")


class _Version(argparse.Action):
    def __call__(self, parser, *_):
        from importlib.metadata import version  # only where it is asked for

        print(f"t2i_jax {version('t2i_jax')}")
        parser.exit()


class _Completion(argparse.Action):
    def __call__(self, parser, namespace, shell, option_string=None):
        try:
            import shtab
        except ImportError:
            raise UserError(f"{option_string} needs shtab: pip install 't2i-jax[completion]'") from None
        print(shtab.complete(parser, shell))
        parser.exit()


def build_parser():
    """The argparse parser of `t2i`; bad usage raises `UserError`."""
    parser = _Parser(prog="t2i", description="Text to image with discrete tokens.", allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and leave")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=("bash", "zsh", "fish"),
        help="print what completes t2i in a shell, and leave",
    )
    parser.set_defaults(quiet=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def parse(argv):
    """Arguments of a command; `overrides` among them are those of a config's fields, as they were given.

    Raises:
      UserError: bad usage.
    """
    args, rest = build_parser().parse_known_args(argv)
    args.overrides, unknown = [], []
    for option in rest:
        value = args.overrides and "=" not in args.overrides[-1] and not option.startswith("-")
        if args.command in WITH_OVERRIDES and (value or option.startswith(OVERRIDES)):
            args.overrides.append(option)
        else:
            unknown.append(option)
    if unknown and unknown[0].startswith("-"):
        options = [f"--{name.replace('_', '-')}" for name in vars(args)]
        near = near_miss(unknown[0].partition("=")[0], options)
        hint = f"; {near}" if near else ""
        raise UserError(f"unrecognized arguments: {' '.join(unknown)}{hint}; see t2i {args.command} --help")
    if unknown:
        raise UserError(f"{unknown[0]!r} is no flag; options start with --; see t2i {args.command} --help")
    return args


def program() -> int:
    """`t2i` as a program of its own: `main`, with huge pages."""
    memory.use_huge_pages()
    return main()


def main(argv=None, *, program="t2i"):
    """Run `t2i` with `argv` (default: the command line); returns the exit code, 0, 2 or 130.

    `program` is what its messages begin with.
    """
    args = None
    try:
        with results.to_stdout():
            args = parse(argv)
            with results.quiet() if args.quiet else nullcontext():
                compiled.keep()
                args.function(args)
    except (UserError, OSError) as error:
        print(f"{program}: {shown(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("; ".join([f"{program}: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return 130
    except Exception as error:
        explained = failures.explain(error, args.command if args else "")
        if explained is None:
            raise
        print(f"{program}: {explained}", file=sys.stderr)
        return 2
    return 0
