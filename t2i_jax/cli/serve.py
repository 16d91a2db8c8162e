"""`t2i serve`: a web page that draws pictures of prompts, on this machine."""

import importlib.util
import math
import socket
import sys
import threading
from pathlib import Path

from t2i_jax.cli.checks import check_run, load_translator
from t2i_jax.errors import UserError

EXAMPLES = 6
LOOPBACK = ("127.0.0.1", "localhost")


def add(commands) -> None:
    """Add the command to argparse's `commands`."""
    serve = commands.add_parser("serve", help="a web page that draws pictures of prompts", allow_abbrev=False)
    serve.add_argument("--run", required=True, action="append", help="run folder; repeat it to compare runs")
    serve.add_argument("--host", default=LOOPBACK[0], help="address to listen at (127.0.0.1: this machine alone)")
    serve.add_argument("--port", type=int, default=7860, help="1 to 65535 (7860)")
    serve.add_argument("--max-images", type=int, default=8, help="pictures a request may ask for, 1 to 64 (8)")
    serve.add_argument("--time-limit", type=float, default=120.0, help="seconds that drawing may take (120)")
    serve.set_defaults(function=run)


def run(args) -> None:
    """Serve until Ctrl-C."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs gradio, which is not installed; pip install 't2i-jax[demo]'")
    if not 1 <= args.port <= 65535:
        raise UserError(f"--port {args.port} is out of range; give 1 to 65535")
    if not 1 <= args.max_images <= 64:
        raise UserError(f"--max-images {args.max_images} is out of range; give 1 to 64")
    if not (math.isfinite(args.time_limit) and args.time_limit > 0):
        raise UserError(f"--time-limit {args.time_limit:g} is out of range; give seconds above 0")
    for folder in args.run:
        check_run(folder)
    _check_free(args.host, args.port)
    runs = {name: load_translator(folder) for name, folder in _names(args.run).items()}
    for folder, pipe in zip(args.run, runs.values(), strict=True):
        if not getattr(pipe, "conditional", True):
            raise UserError(f"--run {folder} was trained without captions and reads no prompt; name another")

    from t2i_jax.page import layout
    from t2i_jax.page.answers import Answers

    page = layout.build(Answers(runs, args.max_images, args.time_limit), _examples(next(iter(runs.values()))))
    address = layout.launch(page, args.host, args.port)
    if args.host not in LOOPBACK:
        where = f"{args.host} port {args.port}"
        print(
            f"warning: whoever reaches {where} can draw pictures here; there is no password, and"
            " nothing is encrypted",
            file=sys.stderr,
        )
    print(address)
    print("Ctrl-C ends it", file=sys.stderr)
    _wait()


def _wait():
    threading.Event().wait()  # the server's threads end with this one


def _names(folders: list[str]) -> dict[str, str]:
    """Short names for runs, of which none is twice: folders' own names, or as they were given."""
    short = [Path(folder).resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else folders
    if len(set(names)) != len(names):
        raise UserError(f"--run {names[0]} is given twice; one run is compared with itself by its settings")
    return dict(zip(names, folders, strict=True))


def _check_free(host, port):
    """Raises UserError where nothing can listen at an address."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror or error}; give another") from None


def _examples(pipe) -> list[str]:
    """Prompts from the run's config, or captions of its data where these are here."""
    if pipe.config.get("shown_captions"):
        return list(pipe.config.shown_captions)[:EXAMPLES]
    data = pipe.config.data
    if not Path(data.data_dir).is_dir():
        return []
    from t2i_jax.data.sources import open_split

    try:
        dataset, _ = open_split(data, data.train)
    except UserError:
        return []
    rows = (dataset[number] for number in range(min(len(dataset), EXAMPLES)))
    return [(row["captions"][0] if "captions" in row else row["caption"]).decode() for row in rows]
