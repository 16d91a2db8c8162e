"""Loss and gradient norm of one step of each task's smoke model, on made-up parameters and a made-up batch.

python tests/golden/regenerate.py
"""

import functools
import json
import sys
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parent
STEPS = {
    "step_autoencode": "vae",
    "step_dalle": "dalle",
    "step_dvae": "dvae",
    "step_prior": "prior",
    "step_reconstruct": "patch_vqvae",
    "step_translate": "translator",
}


def one_step(name: str) -> dict:
    """What one step of `configs/<name>.py:smoke` reports, with dropout, code noise and random start left out."""
    import jax
    from fakes import fake_batch, fake_variables

    from t2i_jax import models
    from t2i_jax.config import load_config
    from t2i_jax.loop.optimizer import make_optimizer
    from t2i_jax.loop.state import State
    from t2i_jax.loop.step import make_step

    config = load_config(f"{name}:smoke")
    task, model = import_module(f"t2i_jax.tasks.{config.task}"), models.build(config)
    batch = fake_batch(config, config.batch_size)
    shapes = jax.eval_shape(functools.partial(task.init, model), jax.random.key(0), batch)
    variables = fake_variables(shapes)
    params = variables.pop("params")
    optimizer = make_optimizer(config.optim, config.steps)
    state = State.create(params, variables, optimizer, config.ema)
    loss_fn = functools.partial(task.loss_fn, model, **config.loss)
    step = make_step(state, loss_fn=loss_fn, optimizer=optimizer, config=config)
    _, values = step(step.place(state), batch)
    return {key: float(values[key]) for key in ("loss", "gradient_norm")}


if __name__ == "__main__":
    sys.path[:0] = [str(FOLDER.parents[1]), str(FOLDER.parent)]
    for golden, config_name in STEPS.items():
        path = FOLDER / f"{golden}.json"
        path.write_text(json.dumps(one_step(config_name), indent=1) + "\n")
        print(path, path.read_text().replace("\n", " "))
