"""Loss and gradient norm of one step of each task's smoke model, on made-up parameters and a made-up batch.

python tests/golden/regenerate.py
"""

import json
import sys
from pathlib import Path

from t2i_jax.config import load_config

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
    from fakes import fake_batch, fake_variables

    from t2i_jax import tasks
    from t2i_jax.loop import parallel

    task = tasks.make(load_config(f"{name}:smoke"))
    built = parallel.make(task)
    variables = fake_variables({"params": built.shapes.params, **built.shapes.variables})
    state = built.with_variables(built.init(), variables.pop("params"), variables)
    _, values = built.step(built.place(state), fake_batch(task, task.config.batch_size))
    return {key: float(values[key]) for key in ("loss", "gradient_norm")}


if __name__ == "__main__":
    sys.path[:0] = [str(FOLDER.parents[1]), str(FOLDER.parent)]
    for golden, config_name in STEPS.items():
        path = FOLDER / f"{golden}.json"
        path.write_text(json.dumps(one_step(config_name), indent=1) + "\n")
        print(path, path.read_text().replace("\n", " "))
