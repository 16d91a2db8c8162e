"""Why the report's greedy images were of one colour: its recipe scaled down beside common ones, on embedded digits.

    python benchmarks/greedy_collapse.py --out runs/greedy-collapse --page docs/greedy-collapse.md

Trains five small translators on the 8 x 8 tokens of a VQ-VAE, each on as many images, samples from each in several
ways, and writes a page and its images. What OUT/results.json holds is not trained again. "The report" is the
student report of the README.
"""

import argparse
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import t2i_jax
from benchmarks import greedy_collapse_page as page
from t2i_jax import files, models, runs
from t2i_jax.data.text import CaptionReader
from t2i_jax.evals import faithfulness, tokens
from t2i_jax.evals.detector import Detector
from t2i_jax.sampling.autoregressive import Autoregressive

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 96
ITEMS = 60_000  # pictures that each arm is trained on
LOOKS = 12  # at its greedy pictures while it trains
CORES = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"
SHAPE = {"width": WIDTH, "heads": 3, "mlp_width": 4 * WIDTH, "layers": 2}
MODEL = {f"model.{half}.{name}": value for half in ("encoder", "decoder") for name, value in SHAPE.items()}
MODEL |= {"sampling.temperature": 0.0, "sampling.min_p": 0.0, "sampling.guidance_scale": 1.0}  # watched: greedy
DRAWS = {
    "greedy": Autoregressive(temperature=0.0),
    "sampled": Autoregressive(),
    "sharpened": Autoregressive(temperature=0.3, min_p=0.05),
    "guided": Autoregressive(guidance_scale=3.0),
}


def arms(items: int) -> dict[str, dict]:
    """Fields of the config by arm. The report's schedule (section 2.2) of 50,000 steps is squeezed into `items`."""

    def report(rate):
        steps = items // 24
        restarts = ((steps // 5, 0.6 * rate), (steps // 2, 0.5 * rate))
        schedule = {"warmup": 10, "schedule": "linear", "lr": rate, "b2": 0.999, "restarts": restarts}
        return {"batch_size": 24, "data.caption_dropout": 0.0} | {
            f"optim.{name}": value for name, value in schedule.items()
        }

    sane = {"batch_size": 64}
    return {
        "report": report(3e-3),
        "report, rate scaled to the width": report(3e-3 * 768 / WIDTH),
        "sane": sane,
        "sane, the report's batch": {**sane, "batch_size": 24},
        "sane, code noise": {**sane, "data.code_noise": 0.1},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/greedy-collapse"), help="folder of runs and results")
    parser.add_argument("--page", type=Path, help="the page to write; its pictures go beside it")
    parser.add_argument("--tokenizer-run", default="runs/vqvae-digits", help="trained there if it is missing")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--items", type=int, default=ITEMS, help=argparse.SUPPRESS)  # fewer, to see that it runs
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    path = arguments.out / "results.json"
    results = (
        files.read_json(path) if path.exists() else {"seed": arguments.seed, "items": arguments.items, "arms": {}}
    )
    prompts = faithfulness.make_prompts(arguments.seed, 25)
    real = faithfulness.real_scenes(prompts, 1, arguments.seed)[:, 0]
    detector, pictures = Detector(), {}
    if "tokenizer_seconds" not in results:
        start = time.monotonic()
        call_train("vqvae:digits", arguments.tokenizer_run, {"data.data_dir": arguments.data_dir})
        results["tokenizer_seconds"] = time.monotonic() - start
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, results)
    for number, (arm, changes) in enumerate(arms(arguments.items).items()):
        folder, start = arguments.out / f"arm-{number}", time.monotonic()
        if arm not in results["arms"]:
            train(folder, changes, arguments)
            found, drawn = judge(folder, prompts, real, detector)
            seconds = time.monotonic() - start
            np.savez_compressed(folder / "drawn.npz", **drawn)
            results["arms"][arm] = {**found, **curves(folder, changes["batch_size"]), "seconds": seconds}
            files.write_json(path, results)
        pictures[arm] = dict(np.load(folder / "drawn.npz"))
    if arguments.page:
        device = f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}"
        about = {
            "command": "python benchmarks/greedy_collapse.py --page docs/greedy-collapse.md",
            "machine": f"{device}, jax {jax.__version__}, {date.today()}",
            "width": WIDTH,
            "scaled": 3e-3 * 768 / WIDTH,
        }
        page.write(results, pictures, arguments.page, about)


def train(folder: Path, changes: dict, arguments) -> None:
    """One arm: `changes` to the config, on `arguments.items` pictures."""
    steps = arguments.items // changes["batch_size"]
    fields = {
        **MODEL,
        **changes,
        "steps": steps,
        "seed": arguments.seed,
        "eval_every": max(1, steps // LOOKS),
        "checkpoint_every": steps,
        "log_every": max(1, steps // 200),
        "parents.tokenizer.run": arguments.tokenizer_run,
        "data.data_dir": arguments.data_dir,
    }
    call_train("translator:grid", folder, fields)


def call_train(config: str, folder: Path | str, fields: dict) -> None:
    """`train.py` in a process of its own: flags of the CPU backend are read once a process."""
    file, variant = config.split(":")
    command = [sys.executable, ROOT / "train.py", f"--config={ROOT}/configs/{file}.py:{variant}"]
    command += [f"--workdir={folder}", *(f"--config.{name}={value}" for name, value in fields.items())]
    flags = os.environ.get("XLA_FLAGS") or (CORES if jax.default_backend() == "cpu" else "")
    subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, check=True)


def judge(folder: Path, prompts, real: np.ndarray, detector) -> tuple[dict, dict]:
    """Statistics of tokens and share of faithful pictures by way of drawing; and pictures of a few prompts."""
    pipe, captions = t2i_jax.load(folder), [prompt.caption for prompt in prompts]
    true = pipe.tokenizer.tokenize(real)
    drawn = {"data": true, **teacher_forced(folder, pipe.config, captions, true)}
    for name, settings in DRAWS.items():
        if settings.guidance_scale == 1 or pipe.config.data.caption_dropout:  # else it never learned to do without
            drawn[name] = pipe.draw_ids(captions, np.arange(len(captions)), 0, settings)
    found, shown = {}, {}
    for name, ids in drawn.items():
        images = np.uint8(pipe.tokenizer.detokenize(ids) * 255 + 0.5)
        found[name] = {
            **tokens.statistics(ids),
            "faithful": faithfulness.score(prompts, images[:, None], detector)["overall"],
        }
        shown[name] = images[:: len(images) // 6][:6]
    return {"draws": found}, shown


def teacher_forced(folder: Path, config, captions, true: np.ndarray) -> dict[str, np.ndarray]:
    """Each token after the true ones before it: the likeliest (the report's "forward"), and one drawn."""
    params = runs.read_weights(folder)[0]
    text_ids, text_mask, _ = CaptionReader(folder / runs.TEXT_TOKENIZER, config.data.text_len).encode_prompts(
        captions
    )
    logits = jax.jit(models.build(config).apply)({"params": params}, text_ids, text_mask, true)
    drawn = jax.random.categorical(jax.random.key(0), logits)
    return {"forward": np.asarray(logits.argmax(-1)), "forward, drawn": np.asarray(drawn)}


def curves(folder: Path, batch: int) -> dict:
    """What the run logged, against the pictures it had read: loss, validation nats, and its greedy tokens."""
    events = EventAccumulator(str(folder / "logs"), size_guidance={"scalars": 0}).Reload()

    def read(name):
        return [[event.step * batch, event.value] for event in events.Scalars(name)]

    names = {"loss": "train/loss", "nats": "validation/nats"}
    names |= {name: f"validation/free_running/{name}" for name in ("longest_run", "distinct")}
    return {name: read(scalar) for name, scalar in names.items()}


if __name__ == "__main__":
    main()
