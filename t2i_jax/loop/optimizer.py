"""AdamW, and Muon for matrices, with warm-up, schedule and clipping."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from t2i_jax import ranges
from t2i_jax.errors import UserError
from t2i_jax.lr_multipliers import deepest

SCHEDULES = {
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "constant": lambda rate, steps: optax.constant_schedule(rate),
}
MATRICES = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
MUON_RMS = 0.2  # about that of AdamW's steps (Liu et al. 2025, section 2.2)


@dataclass(frozen=True)
class Optim:
    """`config.optim`, with its defaults.

    Attributes:
      lr: learning rate after the warm-up.
      warmup: updates in which the rate rises in a line to `lr`; the first one has `lr / warmup`.
      schedule: after the warm-up "cosine" or "linear", down to 0; or "constant".
      b1, b2: decays of AdamW's two moments.
      weight_decay: on matrices only, not on biases and scales.
      clip: largest global norm of the gradient; 0 = no clip.
      restarts: pairs of a step and a rate: the schedule starts again there, from that rate.
      lr_multipliers: by part of the model, a piece of its parameters' paths, such as "bert" or "gpt2/token_embed";
        where several fit, the one that ends deepest counts. 0 freezes a part.
      muon: the rate's multiplier for the kernels that Muon trains; 0 = AdamW for all.
      muon_exclude: pieces of the paths of kernels that AdamW keeps: output layers, and convolutions as products.

    Raises:
      UserError: a value out of its range.
    """

    lr: float = 1e-3
    warmup: int = 100
    schedule: str = "cosine"
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.0
    clip: float = 1.0
    restarts: Sequence = ()
    lr_multipliers: Mapping = field(default_factory=dict)
    muon: float = 0.0
    muon_exclude: Sequence[str] = ("head", "output", "logits", "mu", "logvar", "to_codes", "patches")

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise UserError(f"config.optim.schedule {self.schedule!r} is unknown; choose {', '.join(SCHEDULES)}")
        ranges.check_config(vars(self), "config.optim")
        for step, rate in self.restarts:
            if not (step >= 0 and 0 < rate < math.inf):
                raise UserError(f"config.optim.restarts has {(step, rate)}; give a step and a rate above 0")


def make_schedule(optim, steps: int) -> optax.Schedule:
    """Learning rate by number of updates done: a linear warm-up, then `optim.schedule` down to 0 at `steps`.

    At each of `optim.restarts` it has come down to 0 and starts again from the rate given there.

    Args:
      optim: `config.optim`: an `Optim`, or a mapping of some of its fields.
      steps: updates of the run.

    Raises:
      UserError: a warm-up longer than the run, restarts that are not in order within it, or see `Optim`.
    """
    optim = _settings(optim)
    first, end = ("the first restart", optim.restarts[0][0]) if optim.restarts else ("config.steps", steps)
    if optim.warmup > end:
        raise UserError(f"config.optim.warmup {optim.warmup} is above {first} {end}; lower it or train longer")
    starts = [(optim.warmup, optim.lr), *optim.restarts]
    ends = [step for step, _ in starts[1:]] + [steps]
    if any(end < start for (start, _), end in zip(starts, ends, strict=True)):
        raise UserError(
            f"config.optim.restarts {optim.restarts} are not steps in order up to config.steps {steps}; sort them,"
            " or train longer"
        )
    rise = optim.lr / max(1, optim.warmup)
    parts = [optax.linear_schedule(rise, rise + optim.lr, optim.warmup)]
    parts += [
        SCHEDULES[optim.schedule](rate, max(1, end - start))
        for (start, rate), end in zip(starts, ends, strict=True)
    ]
    return optax.join_schedules(parts, [start for start, _ in starts])


def make_optimizer(optim, steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) behind a clip of the global gradient norm.

    With `optim.muon` above 0, hidden kernels learn by Muon instead (Jordan et al. 2024, "Muon: An optimizer for
    hidden layers in neural networks"), its steps as large as AdamW's usual ones (Liu et al. 2025, "Muon is Scalable
    for LLM Training", section 2.2). A kernel [in, out] is one matrix, one of stacked layers [L, in, out] is L.

    Args:
      optim: `config.optim`: an `Optim`, or a mapping of some of its fields. Parts whose multiplier is 0 are not
        among the parameters (`is_frozen`).
      steps: updates of the run.

    Raises:
      UserError: see `make_schedule`.
    """
    optim = _settings(optim)
    schedule = make_schedule(optim, steps)

    def adamw(multiplier):
        return optax.adamw(
            lambda step: multiplier * schedule(step),
            b1=optim.b1,
            b2=optim.b2,
            weight_decay=optim.weight_decay,
            mask=lambda params: jax.tree.map_with_path(_decays, params),
        )

    def muon(multiplier):
        return optax.contrib.muon(
            lambda step: optim.muon * multiplier * schedule(step),
            weight_decay=optim.weight_decay,
            consistent_rms=MUON_RMS,
            muon_weight_dimension_numbers=lambda params: jax.tree.map(lambda _: MATRICES, params),
        )

    clip = optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity()
    multipliers = {part: multiplier for part, multiplier in optim.lr_multipliers.items() if multiplier}
    if set(multipliers.values()) <= {1.0} and not optim.muon:
        return optax.chain(clip, adamw(1.0))

    def groups_of(params):
        flat = flatten_dict(params, sep="/")
        found = {path: deepest(multipliers, path) for path in flat}
        groups = {path: f"{multipliers.get(part, 1.0):g}" for path, part in found.items()}
        if optim.muon:
            kernels = [path for path, x in flat.items() if path.endswith("/kernel") and x.ndim in (2, 3)]
            hidden = [path for path in kernels if not deepest(optim.muon_exclude, path)]
            groups |= {path: f"muon {groups[path]}" for path in hidden}
        return unflatten_dict(groups, sep="/")

    kinds = {1.0, *multipliers.values()}
    groups = {f"{kind:g}": adamw(kind) for kind in kinds}
    if optim.muon:
        groups |= {f"muon {kind:g}": muon(kind) for kind in kinds}
    return optax.chain(clip, optax.partition(groups, groups_of))


def _settings(optim) -> Optim:
    if isinstance(optim, Optim):
        return optim
    return Optim(**{**optim, "lr_multipliers": dict(optim.get("lr_multipliers", {}))})


def _decays(path, x) -> bool:
    """Whether weights decay: matrices do; the biases and scales of stacked layers are rows of one array [L, D]."""
    return x.ndim > 1 and path[-1].key not in ("bias", "scale")
