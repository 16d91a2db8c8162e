"""AdamW with warm-up, schedule and clipping."""

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


def make_optimizer(optim, steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) behind a clip of the global gradient norm; decay on matrices only."""
    adamw = optax.adamw(
        make_schedule(optim, steps),
        b1=optim.b1,
        b2=optim.b2,
        weight_decay=optim.weight_decay,
        mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    )
    return optax.chain(optax.clip_by_global_norm(optim.clip), adamw)
