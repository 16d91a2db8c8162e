"""Pictures of 256 px a second, from files to FID's statistics, beside pytorch-fid with the same random weights.

    pip install --no-deps --target PEER pytorch-fid torchvision==0.28.0  # torch is that of the extra `parity`
    PYTHONPATH=PEER python benchmarks/inception.py --pictures 300 | tee lines.jsonl

Both decode, scale and average over the same JPEGs, in turns, each in a process of its own (torch forks its workers,
which a process with jax must not do); the peer as its own command does, 50 at a time with a worker a core. Timed is
a second pass. Memory is the largest resident size, the peer's without its workers. `difference` is that of means.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from common import line
from PIL import Image

from t2i_jax import runs
from t2i_jax.cli import memory
from t2i_jax.convert import inception as convert
from t2i_jax.evals.metrics import features, measure
from t2i_jax.evals.metrics.sets import Folder

SIDE, SEED = 256, 0


def write_pictures(folder: Path, count: int) -> None:
    """Photograph-like in that they are smooth in part and full of edges in part."""
    rng = np.random.default_rng(SEED)
    for number in range(count):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        image = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noisy = np.asarray(image, np.int16) + rng.integers(-20, 20, (SIDE, SIDE, 1))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)


def peer():
    """pytorch-fid, and its network with random weights."""
    library = torch.library.Library("torchvision", "DEF")  # built for CUDA, it lacks its operators on CPUs
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from pytorch_fid import fid_score, inception

    torch.manual_seed(SEED)
    with (
        mock.patch.object(inception, "load_state_dict_from_url"),
        mock.patch.object(torch.nn.Module, "load_state_dict"),
    ):
        network = inception.fid_inception_v3().eval()
    with mock.patch.object(inception, "fid_inception_v3", return_value=network):
        model = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    state = {name: x.numpy() for name, x in network.state_dict().items()}
    return fid_score, model, state, library


def measured(side: str, pictures: Path, scratch: Path) -> dict:
    """Seconds of a side's second pass over the pictures, its largest resident size, and the features' mean."""
    fid_score, model, state, library = peer()  # the library lives as long as it is needed
    if side == "ours":
        runs.write_weights(scratch, convert.convert(state, "pytorch-fid"), {}, 0)
        extractor = features.load(scratch)

    def once():
        if side == "ours":
            whole = measure.gather(extractor, Folder(pictures), side, keep=False).whole
            return whole.mean, whole.covariance
        files = sorted(map(str, pictures.iterdir()))
        return fid_score.calculate_activation_statistics(files, model, 50, 2048, "cpu", os.cpu_count())

    once()
    start = time.perf_counter()
    mean, _ = once()
    took = time.perf_counter() - start
    del library
    peak = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return {"seconds": took, "MiB": int(peak.split()[1]) / 1024, "mean": mean.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    for hidden in ("--side", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.side:
            if arguments.side == "ours":
                memory.keep()  # as t2i evaluate does
            print(json.dumps(measured(arguments.side, Path(arguments.folder), Path(scratch))))
            return
        write_pictures(Path(scratch), arguments.pictures)
        load, found = os.getloadavg()[0], {"ours": [], "theirs": []}
        for _ in range(arguments.repeat):
            for side, results in found.items():
                command = [sys.executable, __file__, "--side", side, "--folder", scratch]
                huge = {memory.TUNABLES: memory.HUGE} if side == "ours" else {}  # as all commands have them
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | huge)
                results.append(json.loads(done.stdout.splitlines()[-1]))
    own, other = (arguments.pictures / statistics.median(x["seconds"] for x in found[side]) for side in found)
    means = [np.array(results[-1]["mean"]) for results in found.values()]
    line(
        "FID statistics, 256 px",
        ratio=own / other,
        pictures=arguments.pictures,
        ours_per_s=own,
        peer_per_s=other,
        ours_MiB=max(x["MiB"] for x in found["ours"]),
        peer_MiB=max(x["MiB"] for x in found["theirs"]),
        difference=float(np.abs(means[0] - means[1]).max() / np.abs(means[1]).max()),
        load=load,
    )


if __name__ == "__main__":
    main()
