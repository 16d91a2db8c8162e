"""Which metric notices which fault: five generators of emoji, by the judge and by distances of features.

    python examples/emoji/faults.py --data data/emoji --run runs/translator-emoji --lpips-weights weights/alexnet

All draw for the same 300 names trained on, each three times. "collapsed" has twenty pictures and repeats them;
"recites" shows training pictures of the name, through the tokenizer; "ignores captions" mixes its pictures up. The
reference is every real picture, the judge is `judge.py`'s.
"""

import argparse
import json
from pathlib import Path

import judge
import numpy as np
from make import read_index
from PIL import Image
from scipy import ndimage

import t2i_jax
from t2i_jax.evals import tables
from t2i_jax.evals.metrics import features, measure
from t2i_jax.evals.pictures import reconstruct, sample
from t2i_jax.models import lpips

DISTINCT = 20  # pictures of the collapsed generator
PROMPTS, TIMES = 300, 3  # and pictures of each


def generators(pipe, prompts: list[str], training: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Pictures uint8 [B, H, W, 3], one a prompt, by the name of a generator; `training` has one of each prompt."""
    drawn, rng = sample(pipe, prompts, seed), np.random.default_rng(seed)
    return {
        "the run": drawn,
        "collapsed": drawn[rng.choice(len(drawn), DISTINCT, replace=False)][
            rng.integers(DISTINCT, size=len(drawn))
        ],
        "recites": reconstruct(pipe.tokenizer, training),
        "ignores captions": drawn[rng.permutation(len(drawn))],
        "blurred": ndimage.gaussian_filter(drawn, (0, 1, 1, 0)),
    }


def main() -> None:
    """Print the table, and its numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="what make.py wrote")
    parser.add_argument("--run", required=True)
    parser.add_argument("--lpips-weights", required=True, help="what t2i convert lpips wrote")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pipe, weights = t2i_jax.load(args.run), lpips.load(args.lpips_weights)
    extractor = features.load(args.lpips_weights)
    index, (height, width, _) = read_index(args.data), pipe.tokenizer.shape
    images = [Image.open(args.data / entry["file"]).convert("RGB") for entry in index]
    small = np.stack([np.asarray(image.resize((width, height), Image.BICUBIC)) for image in images])
    right, rng = judge.asked_for(index, {}), np.random.default_rng(args.seed)
    prompts = [caption for caption, own in right.items() if not any(index[i]["held_out"] for i in own)]
    prompts = [str(prompt) for prompt in rng.permutation(prompts)[:PROMPTS] for _ in range(TIMES)]
    training = np.stack([small[rng.choice(right[prompt])] for prompt in prompts])
    asked = [{index[i]["emoji"] for i in right[prompt]} for prompt in prompts]
    bank, owners = judge.embed(weights, images, width), np.array([entry["emoji"] for entry in index])
    real = measure.gather(extractor, list(small), "real pictures", keep=True)
    results = {}
    for name, pictures in generators(pipe, prompts, training, args.seed).items():
        drawn = judge.embed(weights, [Image.fromarray(picture) for picture in pictures], width)
        rank = judge.ranks(judge.distances(drawn, bank), owners, asked)
        own = measure.gather(extractor, list(pictures), name, keep=True)
        found = measure.score(["fd", "kid", "pr"], extractor, own, real, real.whole, 0)
        results[name] = {
            "top-1": float(np.mean(rank < 1)),
            "top-5": float(np.mean(rank < 5)),
            **{metric: values["value"] for metric, values in found.items()},
        }
    rows = {metric: [f"{own[metric]:.3g}" for own in results.values()] for metric in results["the run"]}
    print(tables.format_table("", list(results), rows))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
