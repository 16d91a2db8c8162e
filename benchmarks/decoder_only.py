"""One sequence of text and image tokens against an encoder and a decoder, at equal arithmetic, on embedded digits.

    python benchmarks/decoder_only.py --steps 2000 --seeds 0 1 2 --out runs/decoder-only
    python benchmarks/decoder_only.py --report --out runs/decoder-only --png docs/decoder-only.png

The first trains `configs/dalle.py:digits` for `--steps`, and `configs/translator.py:grid` for as many steps as take
the same FLOPs, with every seed; scores are those of `t2i evaluate` (seed 0). What is in `OUT/results.json` is not
trained or scored again; tokenizer, tokens and data are made where they are missing. The second prints the table in
Markdown, and plots it. FLOPs are those of the matrix products and convolutions of a step (`t2i_jax.loop.flops`), on
each device.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import t2i_jax
from t2i_jax import encode, files
from t2i_jax.config import load_config
from t2i_jax.evals import faithfulness
from t2i_jax.evals.detector import Detector
from t2i_jax.loop import continuing, dry_run
from t2i_jax.loop.train import train

NAMES = {"dalle": "decoder only", "translator": "encoder-decoder"}
LOOKS = 5  # at the validation split, over each training
VALIDATION = "validation[:25%]"  # 500 pictures, to look quickly
MUON = 2.0  # config.optim.muon of both, as in the quick start: binding comes sooner
PICTURES = 4  # a prompt, as `t2i evaluate` draws


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="of the decoder-only model (2000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/decoder-only"), help="folder of runs and results")
    parser.add_argument("--tokenizer-run", type=Path, help="trained there if it is missing (runs/TOKENIZER)")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--prompts", type=int, default=50, help="of each category (50)")
    parser.add_argument("--smoke", action="store_true", help="tiny models and data, to see that it runs")
    parser.add_argument(
        "--prepare", action="store_true", help="only what needs no GPU: FLOPs, tokenizer and tokens"
    )
    parser.add_argument("--report", action="store_true", help="no training: the table, and with --png the picture")
    parser.add_argument("--png", type=Path)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.count:
        print(json.dumps({name: count(config) for name, config in configs(arguments).items()}))
        return
    if not arguments.report:
        arguments.out.mkdir(parents=True, exist_ok=True)
        cache = arguments.out.resolve() / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))  # another seed compiles nothing
        results = begin(arguments)
        if arguments.prepare:
            return
        compare(arguments, results)
    results = files.read_json(arguments.out / "results.json")
    print(table(results))
    if arguments.png:
        plot(results, arguments.png)


def configs(arguments) -> dict:
    """The two models, on one tokenizer."""
    ours = load_config(f"dalle:{'smoke' if arguments.smoke else 'digits'}")
    theirs = load_config(f"translator:{'smoke' if arguments.smoke else 'grid'}")
    if arguments.smoke:
        theirs.parents.tokenizer.config = ours.parents.tokenizer.config
        theirs.model.num_tokens = theirs.model.decoder.positions = ours.model.num_tokens
        theirs.sampling.unguided_tokens = 0
    for config in (ours, theirs):
        config.parents.tokenizer.run = str(arguments.tokenizer_run or ours.parents.tokenizer.run)
        config.data.data_dir = config.parents.tokenizer.config.data.data_dir = arguments.data_dir
        config.data.validation, config.optim.muon, config.optim.lr_multipliers = VALIDATION, MUON, {}
    for shared in ("sampling", "data", "optim", "batch_size", "shown_captions"):
        assert ours[shared] == theirs[shared], shared
    return {"dalle": ours, "translator": theirs}


def count(config) -> dict:
    """Parameters of a model, and FLOPs of a step."""
    found = dry_run.measure(config)
    return {"parameters": sum(found["parameters"].values()), "flops": found["flops"]}


def begin(arguments) -> dict:
    """Results so far; the first time FLOPs are counted. Tokenizer and tokens are there afterwards."""
    path = arguments.out / "results.json"
    if path.exists():
        results = files.read_json(path)
    else:
        command = [sys.executable, __file__, "--count", *(["--smoke"] if arguments.smoke else [])]
        counted = subprocess.run(
            command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, check=True
        )
        results = {"models": json.loads(counted.stdout), "runs": []}
    if results["runs"] and results["steps"] != arguments.steps:
        sys.exit(f"{path} is of --steps {results['steps']}, not {arguments.steps}; name another --out")
    config = configs(arguments)["dalle"].lock()
    run = Path(config.parents.tokenizer.run)
    if not continuing.is_finished(run, config.parents.tokenizer.config):
        train(config.parents.tokenizer.config, run)
    continuing.check_same(run, config.parents.tokenizer.config)
    encode.encode(config, t2i_jax.load(run), run)
    results["steps"] = arguments.steps
    files.write_json(path, results)
    return results


def compare(arguments, results: dict):
    """Train and judge what the results lack."""
    out = arguments.out
    flops = {name: model["flops"] for name, model in results["models"].items()}
    done = {(run["model"], run["seed"]) for run in results["runs"]}
    for seed in arguments.seeds:
        for name, config in configs(arguments).items():
            if (name, seed) in done:
                continue
            config.seed, config.steps = seed, max(1, round(arguments.steps * flops["dalle"] / flops[name]))
            config.checkpoint_every = config.steps
            config.eval_every = max(1, config.steps // LOOKS)
            config.optim.warmup = min(config.optim.warmup, config.steps)
            folder, start = out / f"{name}-{seed}", time.monotonic()
            train(config.lock(), folder)
            trained, start = time.monotonic() - start, time.monotonic()
            pipe = t2i_jax.load(folder)
            run = {
                "model": name,
                "seed": seed,
                "steps": config.steps,
                "device": jax.devices()[0].device_kind,
                "curve": [[step * flops[name], nats] for step, nats in curve(folder)],
                "scores": files.read_json(folder / "scores.json"),
                "faithfulness": judge(arguments.prompts, pipe, lambda prompts, pipe=pipe: draw(pipe, prompts)),
                "seconds": {"training": trained, "judging": time.monotonic() - start},
            }
            if "reconstructed" not in results:  # the ceiling of both
                results["reconstructed"] = judge(
                    arguments.prompts, pipe, lambda prompts, pipe=pipe: reconstruct(pipe.tokenizer, prompts)
                )
            results["runs"].append(run)
            files.write_json(out / "results.json", results)


def curve(folder: Path) -> list[tuple[int, float]]:
    """Step and validation nats a token at every look, from the run's log."""
    events = EventAccumulator(str(folder / "logs")).Reload().Scalars("validation/nats")
    return [(event.step, event.value) for event in events]


@functools.cache
def detector() -> Detector:
    return Detector()


def judge(per_category: int, pipe, pictures) -> dict:
    """Shares of faithful pictures, of prompts like those of training and of held-out ones."""
    columns = {}
    for column, held_out in (("seen", False), ("held out", True)):
        prompts = faithfulness.make_prompts(0, per_category, held_out, exclude=pipe.config.shown_captions)
        columns[column] = faithfulness.score(prompts, pictures(prompts), detector())
    return columns


def draw(pipe, prompts) -> np.ndarray:
    captions = [prompt.caption for prompt in prompts for _ in range(PICTURES)]
    ids = pipe.draw_ids(captions, np.arange(len(captions)), 0, pipe.sampling)
    return pixels(pipe.tokenizer, ids).reshape(len(prompts), PICTURES, 32, 32, 3)


def reconstruct(tokenizer, prompts) -> np.ndarray:
    real = faithfulness.real_scenes(prompts, PICTURES, 0)
    return pixels(tokenizer, tokenizer.tokenize(real.reshape(-1, 32, 32, 3))).reshape(real.shape)


def pixels(tokenizer, ids) -> np.ndarray:
    return np.uint8(tokenizer.detokenize(ids) * 255 + 0.5)


def scores(results: dict, name: str) -> dict[str, list[float]]:
    """Final scores of a model, one a seed."""
    runs = [run for run in results["runs"] if run["model"] == name]
    return {
        "nats a token": [run["scores"]["nats"] for run in runs],
        "overall": [run["faithfulness"]["seen"]["overall"] for run in runs],
        "held out": [run["faithfulness"]["held out"]["overall"] for run in runs],
    }


def table(results: dict) -> str:
    """Means over seeds and, in brackets, least and greatest, in Markdown."""
    rows = []
    for name, title in NAMES.items():
        model, runs = results["models"][name], [run for run in results["runs"] if run["model"] == name]
        steps = runs[0]["steps"]
        cells = [title, f"{model['parameters']:,}", f"{model['flops'] / 1e9:.1f}", f"{steps:,}"]
        cells.append(f"{steps * model['flops'] / 1e12:.1f}")
        for values in scores(results, name).values():
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        cells.append(f"{np.mean([run['seconds']['training'] for run in runs]):.0f}")
        rows.append(cells)
    heads = ["model", "parameters", "GFLOP a step", "steps", "TFLOP in all", *scores(results, "dalle"), "s"]
    lines = [" | ".join(cells) for cells in (heads, ["---"] * len(heads), *rows)]
    ceiling = results["reconstructed"]
    first = results["runs"][0]
    notes = (
        f"Reconstructions of real scenes: overall {ceiling['seen']['overall']:.3f}, held out"
        f" {ceiling['held out']['overall']:.3f}. Bigram baseline {first['scores']['bigram_nats']:.3f} nats."
        f" Seconds of training, its evaluations and compiling included, on {first['device']}; seeds"
        f" {', '.join(str(seed) for seed in sorted({run['seed'] for run in results['runs']}))}."
    )
    return "\n".join([*(f"| {line} |" for line in lines), "", notes])


def plot(results: dict, path: Path) -> None:
    """Validation nats over training FLOPs, and final scores, one line or point a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    nats, final = figure.subplots(1, 2)
    for number, (name, title) in enumerate(NAMES.items()):
        colour = f"C{number}"
        for index, run in enumerate(run for run in results["runs"] if run["model"] == name):
            flops, values = np.transpose(run["curve"])
            label = None if index else title
            nats.plot(flops / 1e12, values, color=colour, marker=".", alpha=0.7, label=label)
        kinds = {kind: values for kind, values in scores(results, name).items() if kind != "nats a token"}
        for place, values in enumerate(kinds.values()):
            at = place + 0.3 * (number - 0.5)
            final.bar(at, np.mean(values), 0.28, color=colour, alpha=0.4, label=None if place else title)
            final.plot([at] * len(values), values, ".", color=colour)
    for place, kind in enumerate(("seen", "held out")):
        line = {"color": "grey", "linestyle": ":"} | ({} if place else {"label": "reconstructions"})
        final.plot([place - 0.4, place + 0.4], [results["reconstructed"][kind]["overall"]] * 2, **line)
    nats.set(xlabel="TFLOP of training", ylabel="validation nats an image token")
    final.set(ylabel="faithful pictures", ylim=(0, 1), xticks=[0, 1], xticklabels=["overall", "held out"])
    for axes in (nats, final):
        axes.grid(alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
