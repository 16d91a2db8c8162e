"""How the Frechet distance leans on the number of pictures, and what memory measuring takes.

    python benchmarks/measuring.py --features weights/alexnet --pictures data/emoji/train --out docs/measuring

Pictures of one half of a set are compared with the other half: the true distance is 0, what is measured is bias.
Memory is that of a process of its own, for made-up pictures.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np

from t2i_jax.evals.metrics import features, kernel, measure
from t2i_jax.evals.metrics.moments import Frechet, Moments
from t2i_jax.evals.metrics.sets import Folder

DRAWS = 5  # of each number of pictures
COUNTS = (300, 400, 600, 800, 1200, 1600, 2400, 3200)
MANY = (1_000, 10_000, 100_000)


class Noise:
    """Made-up pictures, so many."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self):
        rng = np.random.default_rng(0)
        for _ in range(self._count):
            yield rng.integers(0, 256, (32, 32, 3), np.uint8)


def bias(extractor, folder: str, size: int | None) -> dict:
    """Distances of N pictures to the others, by N: mean over draws, and KID's."""
    found = np.concatenate(list(extractor.stream(Folder(folder, size))))
    rng, results = np.random.default_rng(0), {}
    half = len(found) // 2
    for count in (n for n in COUNTS if n <= half):
        frechet, kernels = [], []
        for _ in range(DRAWS):
            order = rng.permutation(len(found))
            drawn, rest = found[order[:count]], found[order[-half:]]
            frechet.append(Frechet(Moments.of(rest))(Moments.of(drawn)))
            kernels.append(kernel.discrepancy(drawn, rest))
        results[count] = {
            "fd": np.mean(frechet).item(),
            "kd": np.mean(kernels).item(),
            "kd_std": np.std(kernels).item(),
        }
    return {"features": extractor.about, "pictures": len(found), "reference": half, "by_count": results}


def memory(folder: str, count: int) -> float:
    """Largest resident size in MiB of a process that measures so many pictures."""
    command = [sys.executable, __file__, "--features", folder, "--gather", str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def plot(results: dict, path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts, many = ([int(n) for n in results[name]] for name in ("by_count", "memory"))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.4), layout="constrained", width_ratios=(5, 3))
    left.plot(counts, [own["fd"] for own in results["by_count"].values()], "o-", label="Frechet distance")
    left.axhline(0, color="grey", linewidth=0.8, label="the true distance")
    left.set(xscale="log", xlabel="pictures", ylabel="distance to other pictures of the same set")
    left.set_xticks(counts, map(str, counts), minor=False)
    left.legend()
    right.plot(many, list(results["memory"].values()), "o-")
    right.set(xscale="log", xlabel="pictures", ylabel="memory of the process, MiB")
    right.set_ylim(0, 1.2 * max(results["memory"].values()))
    right.set_xticks(many, [f"{count:,}" for count in many], minor=False)
    for axes in (left, right):
        axes.minorticks_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", required=True)
    parser.add_argument("--pictures")
    parser.add_argument("--size", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gather", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    extractor = features.load(arguments.features)
    if arguments.gather:
        measure.gather(extractor, Noise(arguments.gather), "noise", keep=False)
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(int(peak.split()[1]) / 1024)  # not ru_maxrss, which begins at that of the parent
        return
    results = bias(extractor, arguments.pictures, arguments.size)
    results["memory"] = {count: memory(arguments.features, count) for count in MANY}
    plot(results, arguments.out.with_suffix(".png"))
    arguments.out.with_suffix(".json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
