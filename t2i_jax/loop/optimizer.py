"""AdamW, and Muon for kernels, with warm-up, schedule and clipping."""

from collections.abc import Sequence

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from t2i_jax.errors import UserError
from t2i_jax.nn.stack import LAYERS


def make_schedule(optim, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up over `optim.warmup` steps, then `optim.schedule` down to 0.

    At each of `optim.restarts`, pairs of a step and a rate, it has come down to 0 and starts again from that rate.

    Raises:
      UserError: an unknown schedule, a warm-up longer than the run, or restarts that are not in order within it.
    """
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
    parts = [optax.linear_schedule(0.0, optim.lr, optim.warmup)]
    for (start, rate), end in zip(starts, ends, strict=True):
        rest = max(1, end - start)
        after = {
            "cosine": optax.cosine_decay_schedule(rate, rest),
            "linear": optax.linear_schedule(rate, 0.0, rest),
            "constant": optax.constant_schedule(rate),
        }
        if optim.schedule not in after:
            raise UserError(f"config.optim.schedule {optim.schedule!r} is unknown; choose {', '.join(after)}")
        parts.append(after[optim.schedule])
    return optax.join_schedules(parts, [start for start, _ in starts])


def make_optimizer(optim, steps: int, frozen: Sequence[str] = ()) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) behind a clip of the global gradient norm; decay on matrices only.

    With `optim.muon` above 0, two-dimensional kernels but the head's learn by Muon instead (Jordan et al. 2024,
    "Muon: An optimizer for hidden layers in neural networks"), its steps as large as AdamW's usual ones (Liu et al.
    2025, "Muon is Scalable for LLM Training", section 2.2).

    Args:
      optim: `config.optim`. Its `factors` say what the learning rate is multiplied by in parts of the model, by a
        piece of their parameters' paths, such as "bert" or "gpt2/token_embed"; where several fit, the one that ends
        deepest counts. Its `muon` is what the rate is multiplied by for what Muon trains.
      steps: of the run.
      frozen: parts that stay as they are, as those of factor 0 do: no gradient, no decay, no optimizer state.

    Raises:
      UserError: a schedule that cannot be; a factor below 0; at `init`, a part that the model does not have.
    """
    factors = dict(optim.factors) | dict.fromkeys(frozen, 0.0)
    if optim.muon < 0:
        raise UserError(f"config.optim.muon {optim.muon} is below 0; 0 is AdamW for everything")
    for part, factor in factors.items():
        if factor < 0:
            raise UserError(f"config.optim.factors.{part} {factor} is below 0; 0 freezes this part")
    schedule = make_schedule(optim, steps)

    def adamw(factor):
        return optax.adamw(
            lambda step: factor * schedule(step),
            b1=optim.b1,
            b2=optim.b2,
            weight_decay=optim.weight_decay,
            mask=lambda params: jax.tree_util.tree_map_with_path(lambda path, x: _rank(path, x) > 1, params),
        )

    def muon(factor):
        return optax.contrib.muon(
            lambda step: optim.muon * factor * schedule(step),
            weight_decay=optim.weight_decay,
            muon_weight_dimension_numbers=lambda params: jax.tree.map(_matrices, params),
            consistent_rms=0.2,
        )

    if not factors and not optim.muon:
        return optax.chain(optax.clip_by_global_norm(optim.clip), adamw(1.0))

    def groups_of(params):
        flat = flatten_dict(params)
        found = {path: path[0] if path[0] in frozen else _deepest(factors, "/".join(path)) for path in flat}
        if unknown := sorted(factors.keys() - found.values()):
            raise UserError(f"config.optim.factors.{unknown[0]} names no part of this model: {', '.join(params)}")
        groups = {path: f"{factors.get(part, 1.0):g}" for path, part in found.items()}
        if optim.muon:
            kernels = [path for path, x in flat.items() if path[-1] == "kernel" and _rank(path, x) == 2]
            hidden = [path for path in kernels if path[0] != "head" and groups[path] != "0"]
            groups |= {path: f"muon {groups[path]}" for path in hidden}
        return unflatten_dict(groups)

    kinds = {1.0, *factors.values()}
    groups = {f"{factor:g}": adamw(factor) if factor else optax.set_to_zero() for factor in kinds}
    if optim.muon:
        groups |= {f"muon {factor:g}": muon(factor) for factor in kinds if factor}
    return optax.chain(
        optax.masked(optax.set_to_zero(), lambda params: jax.tree.map(lambda name: name == "0", groups_of(params))),
        optax.clip_by_global_norm(optim.clip),
        optax.partition(groups, groups_of),
    )


def _rank(path, x) -> int:
    """Axes of a parameter; of stacked ones, those of one layer's."""
    return x.ndim - any(getattr(key, "key", key) == LAYERS for key in path)


def _matrices(x) -> optax.contrib.MuonDimensionNumbers:
    """A kernel's last two axes; what stands before them counts its matrices."""
    return optax.contrib.MuonDimensionNumbers(x.ndim - 2, x.ndim - 1)


def _deepest(parts, path: str) -> str | None:
    """The one of `parts` that ends deepest in a path; None where none is a piece of it."""
    ends = {part: f"/{path}/".find(f"/{part}/") + len(part) for part in parts if f"/{part}/" in f"/{path}/"}
    return max(ends, key=ends.get, default=None)
