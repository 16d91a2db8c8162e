"""Scores of every checkpoint of a digits run against the minutes it had trained, as CSV on stdout.

    python train.py --config=configs/translator.py --workdir=RUN --config.keep_checkpoints=100
    python benchmarks/score_curve.py RUN --seed 1000 > curve.csv

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
    arguments = parser.parse_args()
    events = EventAccumulator(str(arguments.run / "logs")).Reload().Scalars("train/loss")
    detector, rows = Detector(), csv.writer(sys.stdout)
    rows.writerow(["step", "minutes", "train_nats", "overall", "weakest", "held_out"])
    for step in sorted(int(path.name) for path in (arguments.run / "checkpoints").iterdir() if path.name.isdigit()):
        with tempfile.TemporaryDirectory() as folder:
            view = Path(folder) / "run"
            keep_out = shutil.ignore_patterns("checkpoints", "logs", "pictures", "model.safetensors")
            shutil.copytree(arguments.run, view, ignore=keep_out)
            shutil.copytree(arguments.run / "tokenizer", view / "tokenizer", dirs_exist_ok=True)
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
        minutes = (event.wall_time - events[0].wall_time) / 60
        overall, held_out = (score["overall"] for score in scores)
        row = [step, f"{minutes:.2f}", f"{event.value:.3f}", f"{overall:.3f}", f"{min(scores[0].values()):.3f}"]
        rows.writerow([*row, f"{held_out:.3f}"])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
