"""AdamW with warm-up, schedule and clipping."""

from collections.abc import Sequence

import jax
import optax

from t2i_jax.errors import UserError


def make_schedule(optim, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up over `optim.warmup` steps, then `optim.schedule` down to 0.

    Raises:
      UserError: an unknown schedule, or a warm-up longer than the run.
    """
    if optim.warmup > steps:
        raise UserError(
            f"config.optim.warmup {optim.warmup} is above config.steps {steps}; lower it or train longer"
        )
    rest = max(1, steps - optim.warmup)
    after = {
        "cosine": optax.cosine_decay_schedule(optim.lr, rest),
        "linear": optax.linear_schedule(optim.lr, 0.0, rest),
        "constant": optax.constant_schedule(optim.lr),
    }
    if optim.schedule not in after:
        raise UserError(f"config.optim.schedule {optim.schedule!r} is unknown; choose {', '.join(after)}")
    warmup = optax.linear_schedule(0.0, optim.lr, optim.warmup)
    return optax.join_schedules([warmup, after[optim.schedule]], [optim.warmup])


def make_optimizer(optim, steps: int, frozen: Sequence[str] = ()) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) behind a clip of the global gradient norm; decay on matrices only.

    Args:
      optim: `config.optim`. Its `factors` name parts of the model, the first keys of its parameters, and what the
        learning rate is multiplied by there.
      steps: of the run.
      frozen: parts that stay as they are, as those of factor 0 do: no gradient, no decay, no optimizer state.

    Raises:
      UserError: a schedule that cannot be; a factor below 0; at `init`, a part that the model does not have.
    """
    factors = dict(optim.factors) | dict.fromkeys(frozen, 0.0)
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
            mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
        )

    if not factors:
        return optax.chain(optax.clip_by_global_norm(optim.clip), adamw(1.0))

    def factor_of(params):
        if unknown := sorted(factors.keys() - params.keys()):
            raise UserError(f"config.optim.factors.{unknown[0]} names no part of this model: {', '.join(params)}")
        return {part: f"{factors.get(part, 1.0):g}" for part in params}

    kinds = {1.0, *factors.values()}
    groups = {f"{factor:g}": adamw(factor) if factor else optax.set_to_zero() for factor in kinds}
    return optax.chain(
        optax.masked(optax.set_to_zero(), lambda params: jax.tree.map(lambda name: name == "0", factor_of(params))),
        optax.clip_by_global_norm(optim.clip),
        optax.partition(groups, factor_of),
    )
