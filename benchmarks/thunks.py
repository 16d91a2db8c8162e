"""Where a training step spends its time on a CPU: milliseconds by kind of operation, a table on stdout.

    python benchmarks/thunks.py translator:digits --matmul bfloat16

Sums over the threads of what XLA's programs write into a profile; names without their numbers are kinds.
"""

import argparse
import gzip
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from benchmarks.common import made_up
from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.loop.setup import Setup


def profile(config, steps: int) -> Counter:
    """Milliseconds a step by kind."""
    built = Setup(tasks.make(config))
    state, batch = built.init(), made_up(built.task.batch_spec(config.batch_size))
    for _ in range(3):
        state, _ = jax.block_until_ready(built.step(state, batch))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            for _ in range(steps):
                state, _ = jax.block_until_ready(built.step(state, batch))
        found = json.loads(gzip.decompress(next(Path(folder).rglob("perfetto_trace.json.gz")).read_bytes()))
    kinds = Counter()
    for event in found["traceEvents"]:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            kinds[re.sub(r"[.\d]+|(?<=_)clone\b", "", event["name"]).strip("_")] += event["dur"] / 1000 / steps
    return kinds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", metavar="NAME:VARIANT")
    parser.add_argument("--matmul", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--kinds", type=int, default=12, help="that are shown; the others are a row")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    config.matmul = arguments.matmul
    kinds = profile(config, arguments.steps)
    shown = kinds.most_common(arguments.kinds)
    rows = [*shown, ("others", kinds.total() - sum(took for _, took in shown)), ("all", kinds.total())]
    print("| kind | ms a step, threads added |\n|---|---|")
    print(*(f"| {kind} | {took:.1f} |" for kind, took in rows), sep="\n")


if __name__ == "__main__":
    main()
