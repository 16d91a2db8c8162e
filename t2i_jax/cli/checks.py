"""What the commands check before they start: runs, and whether results can be written."""

import inspect
import os
import tempfile
from argparse import ArgumentTypeError
from importlib.util import find_spec
from pathlib import Path

import t2i_jax
from t2i_jax.errors import UserError
from t2i_jax.ranges import as_image_size


def load_translator(run):
    """What draws pictures of prompts: the `Translator` or `Prior` of a run.

    Raises:
      UserError: the run holds anything else, which reads no prompt.
    """
    pipe = t2i_jax.load(run)
    if callable(pipe):
        return pipe
    if hasattr(pipe, "sample"):
        raise UserError(
            f"--run {run} holds a model that reads no prompt; leave prompts out (t2i sample --run {run}), or name a"
            " translator's run"
        )
    raise UserError(
        f"--run {run} holds an image tokenizer, which reads no prompt; name a translator's run "
        "(train.py --config=configs/translator.py trains one)"
    )


def load_unconditional(run, given):
    """A run that draws pictures without a prompt, by `.sample(n, seed, **settings)`.

    Args:
      run: its folder.
      given: names of settings that `.sample` is to be called with.

    Raises:
      UserError: it draws none, or only of prompts, or `.sample` takes no such setting.
    """
    pipe = t2i_jax.load(run)
    if not hasattr(pipe, "sample"):
        if callable(pipe):
            raise UserError("give either --prompt or --prompts-file; neither is given")
        raise UserError(
            f"--run {run} holds an image tokenizer, which turns pictures into tokens and back but cannot make"
            " new ones; name the run of a model that draws pictures"
        )
    known = inspect.signature(pipe.sample).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for name in given:
        if not (takes_all or name in known):
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} means nothing to --run {run}, which draws without it; leave it out")
    return pipe


def check_matplotlib(command: str):
    """Raises UserError where what `command` draws with is not installed."""
    if find_spec("matplotlib") is None:
        raise UserError(f"{command} needs matplotlib: pip install 't2i-jax[plot]'")


def image_size(text: str) -> int | tuple[int, int]:
    """The size of pictures that a flag says: `64`, or `48,64` for height and width.

    Raises:
      ArgumentTypeError: it says none.
    """
    try:
        return as_image_size([int(side) for side in text.split(",")] if "," in text else int(text))
    except (ValueError, UserError):
        raise ArgumentTypeError(f"{text!r} is no size; give a side, or height,width as in 48,64") from None


def check_run(run) -> Path:
    """The folder of a run, fetched where it is named by its place on the hub.

    Raises:
      UserError: there is none.
    """
    from t2i_jax.convert import hub

    folder = hub.find_run(run)
    if not folder.is_dir():
        raise UserError(f"--run {run} is no folder; name one that train.py wrote (its --workdir)")
    return folder


def results_folder(run) -> Path:
    """Where results of a run go that is not told: into it, and here where it was fetched or there is none."""
    return Path(run) if run and Path(run).is_dir() else Path()


def check_grid_path(out):
    """Raises UserError where a PNG cannot be written as `out`."""
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out} does not end in .png; a grid is written as PNG")
    check_file(out)


def check_file(out):
    """Raises UserError where a file cannot be written as `out`."""
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file, or {out}{os.sep} for single pictures")
    if out.exists() and not os.access(out, os.W_OK):
        raise UserError(f"--out {out}: Permission denied; name a file that can be written")
    _check_writable(out, out.parent)


def check_folder(out, names):
    """Raises UserError where `out` cannot be written into, or holds pictures of other names than `names`."""
    _check_writable(out, out)
    if not out.is_dir():
        return
    others = sorted(path.name for path in out.glob("*.png") if path.name not in names)
    if others:
        raise UserError(
            f"--out {out} holds {others[0]}, which this command would not overwrite; name another folder, "
            "so that pictures are not mixed"
        )


def _check_writable(out, folder):
    """Prove that `folder` can be written, or made, without leaving a trace."""
    while not os.path.lexists(folder):
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--out {out}: cannot write in {folder}: {error.strerror}; name another") from None
