"""Ranges of the numbers that people set: fields of configs in one table, and one check for these and samplers."""

import math
from numbers import Integral, Real
from typing import NamedTuple

from t2i_jax.errors import UserError
from t2i_jax.random import MAX_SEED

MOST = 3e38  # of float32, less a little
MOST_WHOLE = 2**31 - 1  # of int32


class Range(NamedTuple):
    """Numbers from `least` to `most`.

    Attributes:
      whole: int instead of float.
      above: `least` itself is out of range.
      below: `most` itself is out of range.
      way_out: what errors tell people to give; "" says the range.
      note: behind that, as in "0 is no clip".
      choices: all that there are, where the range has gaps.
    """

    least: Real = 0
    most: Real | None = None
    whole: bool = False
    above: bool = False
    below: bool = False
    way_out: str = ""
    note: str = ""
    choices: tuple[Real, ...] = ()


def check(name: str, value, range_: Range) -> int | float:
    """The value as an int or a float, as its range says.

    Args:
      name: what errors call it.
      value: anything.

    Raises:
      UserError: it is no finite number, or out of its range.
    """
    least, most = range_.least, range_.most
    if most is None:
        most = MOST_WHOLE if range_.whole else MOST
    if isinstance(value, bool) or not isinstance(value, Real):
        problem = f"{value!r} is no number"
    elif not (isinstance(value, Integral) or math.isfinite(value)):
        problem = f"{value} is not finite"
    elif value < least:
        problem = f"{_said(value)} is below {_said(least)}"
    elif value > most:
        problem = f"{_said(value)} is above {_said(most)}"
    elif value == least and range_.above:
        problem = f"{_said(value)} is not above {_said(least)}"
    elif value == most and range_.below:
        problem = f"{_said(value)} is not below {_said(most)}"
    elif range_.whole and not isinstance(value, Integral):
        problem = f"{value} is no whole number"
    elif range_.choices and value not in range_.choices:
        problem = f"{_said(value)} is none of {', '.join(map(_said, range_.choices))}"
    else:
        # An int where a float belongs would be another trace of a jitted sampler.
        return int(value) if range_.whole else float(value)
    raise UserError(f"{name} {problem}; {_way_out(range_)}")


def sides(size, name: str = "image_size") -> tuple[int, int]:
    """Height and width in pixels that an `image_size` says: one number for a square, or a pair.

    Args:
      size: as people give it.
      name: what errors call it.

    Raises:
      UserError: it is neither, or a side is no whole number from 1 up.
    """
    pair = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(pair) != 2:
        raise UserError(f"{name} is {size!r}; give one side, or height and width, as in 48,64")
    height, width = (check(name, side, COUNT) for side in pair)
    return height, width


def as_image_size(size, name: str = "image_size") -> int | tuple[int, int]:
    """An `image_size` as it is kept: a square is one number, so that it has one name; see `sides`."""
    height, width = sides(size, name)
    return height if height == width else (height, width)


def _said(number: Real) -> str:
    return str(number) if isinstance(number, Integral) else f"{number:g}"


def _way_out(range_: Range) -> str:
    if range_.way_out:
        return range_.way_out
    first = f"{'above' if range_.above else 'from'} {_said(range_.least)}"
    last = " up" if range_.most is None else f" to {'below ' * range_.below}{_said(range_.most)}"
    said = f"give a {'whole ' * range_.whole}number {first}{'' if last == ' up' and range_.above else last}"
    return f"{said}; {range_.note}" if range_.note else said


COUNT, COUNT_OR_0 = Range(1, whole=True), Range(0, whole=True)
WEIGHT, POSITIVE = Range(), Range(above=True)
SHARE, RATE = Range(most=1), Range(most=1, below=True)
AXIS = Range(-1, whole=True, note="-1 takes what is left of the devices")

FIELDS = {
    **dict.fromkeys(("steps", "batch_size", "accumulate", "log_every", "eval_every", "checkpoint_every"), COUNT),
    "keep_checkpoints": COUNT,
    "judge_every": Range(0, whole=True, note="0 leaves the judge to t2i evaluate"),
    "seed": Range(0, MAX_SEED, whole=True),
    "skip_nonfinite": Range(0, whole=True, note="0 stops at the first update that is not finite"),
    "ema": Range(most=1, below=True, note="0 is no average"),
    "codebook_reset_every": Range(0, whole=True, note="0 is never"),
    "kmeans_examples": Range(0, whole=True, note="0 is no k-means"),
    **dict.fromkeys(("data", "fsdp", "tensor"), AXIS),  # of `config.mesh`
    # config.optim
    "lr": Range(above=True, note="a usual rate is 1e-3"),
    "warmup": Range(0, whole=True, note="0 starts at the whole rate"),
    **dict.fromkeys(("b1", "b2"), RATE),
    "weight_decay": Range(note="0 is no decay"),
    "clip": Range(note="0 is no clip"),
    "muon": Range(note="0 is AdamW for everything"),
    "lr_multipliers": Range(note="0 freezes this part"),  # each of them
    # config.data
    "image_size": COUNT,  # each of its sides
    "channels": COUNT,
    "text_len": Range(3, whole=True, note="the two ends of a caption count too"),
    **dict.fromkeys(("caption_dropout", "code_noise"), SHARE),
    "validation_share": RATE,
    "crops": COUNT_OR_0,
    # config.loss, and options of quantizers
    **dict.fromkeys(("beta", "foreground_weight", "perceptual", "kl_weight", "text_weight", "commitment"), WEIGHT),
    **dict.fromkeys(("absolute", "adversarial"), WEIGHT),
    "temperature": POSITIVE,
    "sigma": Range(above=True, note="a usual one is 0.1 pixel values"),
    **dict.fromkeys(("kl_steps", "temperature_steps"), COUNT),
    **dict.fromkeys(("kl_warmup", "disc_start"), COUNT_OR_0),
    "decay": RATE,
    "lookup_width": COUNT,
    # config.model
    **dict.fromkeys(("dropout", "attention_dropout"), RATE),
    **dict.fromkeys(("layers", "encoder_layers", "decoder_layers", "blocks", "depth", "stage"), COUNT),
    **dict.fromkeys(("residual_blocks", "unroll"), COUNT_OR_0),
    **dict.fromkeys(("width", "heads", "mlp_width", "code_width", "latent_width", "latent", "kernel"), COUNT),
    **dict.fromkeys(("codebook_size", "num_tokens", "text_vocab_size", "positions", "max_positions"), COUNT),
    **dict.fromkeys(("patch", "block", "downsampling", "residual_depth", "groups", "gains", "hues"), COUNT),
}


def check_config(config, path: str = "config") -> None:
    """Check each number in a config and in those of its parents; samplers check their own.

    A field that `FIELDS` does not name, such as one of an extension, has to be finite.

    Args:
      config: or a part of one, which lies at `path`.

    Raises:
      UserError: a number is out of its range.
    """
    for name, value in config.items():
        field = f"{path}.{name}"
        if name == "sampling":
            continue
        if name == "image_size" and value is not None:
            sides(value, field)
        elif name == "lr_multipliers":
            for part, multiplier in value.items():
                check(f"{field}.{part}", multiplier, FIELDS[name])
        elif hasattr(value, "items"):
            check_config(value, field)
        elif isinstance(value, Real) and not isinstance(value, bool):
            check(field, value, FIELDS.get(name, Range(-MOST)))


KINDS = {"task": str, "model_name": str, "model": dict, "data": dict, "steps": int, "sampling": dict | None}


def wrong_kind(config: dict) -> str:
    """Which field of a run's config, as JSON has it, is missing or of another kind; "" where none is."""
    for name, kind in KINDS.items():
        if name not in config:
            return f"has no field {name!r}"
        if not isinstance(config[name], kind):
            return f"has a {type(config[name]).__name__} as {name!r}"
    parents = config.get("parents", {})
    for name, parent in parents.items() if isinstance(parents, dict) else [("", None)]:
        whole = isinstance(parent, dict) and isinstance(parent.get("config"), dict) and "/" not in name
        if not whole or not isinstance(parent.get("run", 0), str | None):
            return f"has parents of another kind ({name[:80]!r})"
    return ""
