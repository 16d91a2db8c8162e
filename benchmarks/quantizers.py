"""All kinds of quantizer in the grid VQ-VAE on embedded digits, with equal steps: a table in Markdown on stdout.

    python benchmarks/quantizers.py --workdir runs/quantizers

Finished runs are not trained again. Everything but the kind is `configs/vqvae.py:digits`.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from t2i_jax import files
from t2i_jax.config import load_config
from t2i_jax.loop.train import train
from t2i_jax.nn.quantizers import KINDS

ROWS = {kind: {} for kind in KINDS}
ROWS["gradient, no k-means, no restarts"] = {
    "quantizer": "gradient",
    "kmeans_examples": 0,
    "codebook_reset_every": 0,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs/quantizers"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--data-dir", default="data")
    arguments = parser.parse_args()
    print("| quantizer | usage | perplexity | PSNR, dB | s |\n|---|---|---|---|---|")
    for name, changes in ROWS.items():
        config = load_config("vqvae:digits")
        config.data.data_dir = arguments.data_dir
        config.steps = config.eval_every = config.checkpoint_every = arguments.steps
        changes = {"quantizer": name} | changes
        config.model.quantizer = changes.pop("quantizer")
        config.update(changes)
        folder = arguments.workdir / name.replace(", ", "-").replace(" ", "-")
        start = time.monotonic()
        train(config, folder)
        scores, seconds = files.read_json(folder / "scores.json"), time.monotonic() - start
        cells = [name, f"{scores['usage']:.1%}", f"{scores['perplexity']:.0f}", f"{scores['psnr']:.2f}"]
        print("|", " | ".join([*cells, f"{seconds:.0f}"]), "|", flush=True)


if __name__ == "__main__":
    main()
