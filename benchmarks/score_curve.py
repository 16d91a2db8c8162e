"""Scores of every checkpoint of a digits run against the minutes it had trained, as CSV on stdout and as a picture.

    python train.py --config=configs/translator.py --workdir=RUN --config.keep_checkpoints=100
    python benchmarks/score_curve.py RUN --seed 1000 --png docs/recipe-digits.png

Minutes are the wall time of the run's own log, from its first step; data, tokenizer and encoding come on top.
The seed is that of prompts and pictures; 0 is the evaluation's, so tune with another.
"""

import argparse
import csv
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import t2i_jax
from t2i_jax.evals import faithfulness
from t2i_jax.evals.detector import Detector


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    events = EventAccumulator(str(arguments.run / "logs")).Reload().Scalars("train/loss")
    detector, rows = Detector(), []
    writer = csv.DictWriter(sys.stdout, ["step", "minutes", "train_nats", "overall", "weakest", "held_out"])
    writer.writeheader()
    for step in sorted(int(path.name) for path in (arguments.run / "checkpoints").iterdir() if path.name.isdigit()):
        with tempfile.TemporaryDirectory() as folder:
            view = Path(folder) / "run"
            keep_out = shutil.ignore_patterns("checkpoints", "logs", "pictures", "model.safetensors")
            shutil.copytree(arguments.run, view, ignore=keep_out)
            shutil.copytree(arguments.run / "parents", view / "parents", dirs_exist_ok=True)
            shutil.copytree(arguments.run / "checkpoints" / str(step), view / "checkpoints" / str(step))
            pipe = t2i_jax.load(view)
        scores = []
        for held_out in (False, True):
            prompts = faithfulness.make_prompts(
                arguments.seed, held_out=held_out, exclude=pipe.config.shown_captions
            )
            captions = [prompt.caption for prompt in prompts for _ in range(2)]
            ids = pipe.draw_ids(captions, np.arange(len(captions)), arguments.seed, pipe.sampling)
            images = np.uint8(pipe.tokenizer.detokenize(ids) * 255 + 0.5)
            scores.append(faithfulness.score(prompts, images.reshape(len(prompts), 2, *images.shape[1:]), detector))
        event = min(events, key=lambda event: abs(event.step - step))
        overall, held_out = (score["overall"] for score in scores)
        measured = [
            (event.wall_time - events[0].wall_time) / 60,
            event.value,
            overall,
            min(scores[0].values()),
            held_out,
        ]
        rows.append(dict(zip(writer.fieldnames, [step, *(round(value, 3) for value in measured)], strict=True)))
        writer.writerow(rows[-1])
        sys.stdout.flush()
    if arguments.png:
        plot(rows, arguments.png)


def plot(rows: list[dict], path: Path) -> None:
    """Draw the scores and the training loss over the minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    minutes = [row["minutes"] for row in rows]
    for name in ("overall", "held_out", "weakest"):
        axes.plot(minutes, [row[name] for row in rows], marker="o", label=name.replace("_", " "))
    axes.set(xlabel="minutes of training", ylabel="score", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    nats = axes.twinx()
    nats.plot(minutes, [row["train_nats"] for row in rows], color="grey", linestyle=":")
    nats.set_ylabel("training loss, nats a token (dotted)")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
