"""Which metric notices which fault: five generators of captioned digits, by the judge and by distances of features.

    python benchmarks/faults.py --run runs/quickstart/translator --features weights/alexnet

All draw for the same open prompts. "collapsed" has twenty pictures of each kind of caption and repeats them;
"recites" shows scenes of training digits, through the tokenizer; "ignores captions" mixes its pictures up.
"""

import argparse
import json

import numpy as np
from scipy import ndimage

import t2i_jax
from t2i_jax.evals import diversity, faithfulness, tables
from t2i_jax.evals.copies import Copies
from t2i_jax.evals.detector import Detector
from t2i_jax.evals.metrics import features, measure
from t2i_jax.evals.pictures import reconstruct, sample

DISTINCT = 20  # pictures of the collapsed generator


def generators(pipe, prompts, seed: int) -> dict[str, np.ndarray]:
    """Pictures, one a prompt, by the name of a generator."""
    drawn = sample(pipe, [prompt.caption for prompt in prompts], seed)
    rng, kinds = np.random.default_rng(seed), np.array([prompt.scene.kind for prompt in prompts])
    firsts = {kind: np.flatnonzero(kinds == kind)[:DISTINCT] for kind in np.unique(kinds)}
    collapsed = drawn[[rng.choice(firsts[kind]) for kind in kinds]]
    training = faithfulness.real_scenes(prompts, 1, seed, split="train")[:, 0]
    return {
        "the run": drawn,
        "collapsed": collapsed,
        "recites": reconstruct(pipe.tokenizer, training),
        "ignores captions": drawn[rng.permutation(len(drawn))],
        "blurred": ndimage.gaussian_filter(drawn, (0, 0.8, 0.8, 0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--per-kind", type=int, default=500)
    arguments = parser.parse_args()
    pipe, extractor, detector = t2i_jax.load(arguments.run), features.load(arguments.features), Detector()
    prompts, copies = diversity.make_open_prompts(0, arguments.per_kind), Copies(pipe.tokenizer)
    real = measure.gather(extractor, list(faithfulness.real_scenes(prompts, 1, 1)[:, 0]), "real scenes", keep=True)
    results = {}
    for name, images in generators(pipe, prompts, 0).items():
        readings = detector(images)
        right = [faithfulness.judge(*pair) for pair in zip(prompts, readings, strict=True)]
        own = measure.gather(extractor, list(images), name, keep=True)
        found = measure.score(["fd", "kid", "pr"], extractor, own, real, real.whole, 0)
        varied = diversity.measure(prompts, readings)
        results[name] = {
            "faithful": float(np.mean(right)),
            **varied,
            "copies": copies.measure(readings).get("generated", {"score": float("nan")})["score"],
            **{metric: values["value"] for metric, values in found.items()},
        }
    rows = {metric: [f"{own[metric]:.3g}" for own in results.values()] for metric in results["the run"]}
    print(tables.format_table("", list(results), rows))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
