"""`t2i sample --like`: what a PNG says of how it was made, read as one reads a stranger's file."""

from pathlib import Path

from t2i_jax import sampling
from t2i_jax.errors import UserError

MAX_PROMPT = 10_000  # characters
OWN = {"prompt": None, "prompts_file": None, "num": 4, "seed": 0, "candidates": None, "rerank": None, "clip": None}


def fill(args) -> dict:
    """Set what the flags of `t2i sample` would have set, from the note in `args.like`; their ranges are left to it.

    Returns:
      The note.

    Raises:
      UserError: the file holds no note of this program, a note that no flags can say, or other flags are given.
    """
    from t2i_jax.pictures import read_note

    settings = sampling.settings()
    for name, default in {**OWN, **dict.fromkeys(settings)}.items():
        if getattr(args, name) != default:
            option = "-n" if name == "num" else "--" + name.replace("_", "-")
            raise UserError(f"--like takes everything from its picture; leave {option} out")
    if (args.out or "").endswith("/"):
        raise UserError(f"--like draws one picture; --out {args.out} is a folder, name a PNG")
    if not Path(args.like).is_file():
        raise UserError(f"--like {args.like} is no file; name a PNG that t2i sample or its page made")
    note = read_note(args.like)
    if note is None:
        raise UserError(
            f"--like {args.like} does not say how it was made, or is damaged; name a PNG that t2i sample or its"
            " page made, as it was saved"
        )
    wrong = _wrong(note, settings)
    if wrong:
        raise UserError(f"--like {args.like}: {wrong}; it was not made by this command, or was changed since")
    if note["rerank"] == "clip":
        raise UserError(
            f"--like {args.like} was chosen by CLIP, which is not loaded because a picture says so; give the flags"
            " of t2i sample themselves"
        )
    single = "index" in note
    args.prompt = note["prompts"] if not single else None if note["prompt"] is None else [note["prompt"]]
    args.index = note["index"] if single else None
    args.num = note["index"] + 1 if single else note["n"]
    for name in ("seed", "candidates", "rerank", *settings):
        setattr(args, name, note.get(name))
    if args.prompt is None:
        args.guidance_scale = None  # of the run's sampler, which uses none without a prompt
    return note


def check(args, note: dict, settings: dict) -> None:
    """Whether the run draws as the note says.

    Args:
      args: of the command.
      note: see `fill`.
      settings: with which the run would draw, as `pictures.ways` writes them.

    Raises:
      UserError: it would draw another picture.
    """
    fields = sampling.settings()
    for name, value in settings.items():
        # A setting that there was not yet when the picture was drawn: it was off, as by default.
        found = note.get(name, fields[name].default if name in fields else None)
        if found != value:
            what = "weights of another run" if name == "digest" else f"another {name} ({found})"
            raise UserError(f"--like {args.like} was drawn by {what}; --run {args.run} cannot draw it again")


def _wrong(note: dict, settings) -> str:
    """What a note holds that this program does not write; "" where there is nothing."""
    shape = {"prompt", "index"} if "index" in note else {"prompt", "prompts", "n"}
    fixed = shape | {"digest", "seed", "candidates", "rerank", "clip"}
    if lacking := sorted(fixed - set(note)):
        return f"it says nothing of {lacking[0]}"
    if foreign := set(note) - fixed - set(settings):
        return f"it names {len(foreign)} settings that are unknown here"
    prompts = note["prompts"] if "prompts" in note else note["prompt"] and [note["prompt"]]
    kinds = {
        "digest": isinstance(note["digest"], str),
        "seed": _whole(note["seed"]),
        "candidates": note["candidates"] is None or _whole(note["candidates"]),
        "rerank": note["rerank"] in (None, "likelihood", "clip"),
        "index": _whole(note.get("index", 0)) and note.get("index", 0) >= 0,
        "n": _whole(note.get("n", 1)),
        "prompt": prompts is None or (isinstance(prompts, list) and prompts and all(map(_is_prompt, prompts))),
        **{name: _number(note[name]) for name in settings if name in note},
    }
    wrong = [name for name, right in kinds.items() if not right]
    return f"its {wrong[0]} cannot be right" if wrong else ""


def _whole(value) -> bool:
    return isinstance(value, int) and _number(value)


def _number(value) -> bool:
    """None of infinitely many digits, which an error would repeat."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e39


def _is_prompt(text) -> bool:
    return isinstance(text, str) and len(text) <= MAX_PROMPT and text.isprintable()
