"""Seconds that a command takes, with and without compiled programs on the disk: one JSON line a case on stdout.

    python benchmarks/startup.py --run runs/quickstart/translator

Medians of --repeat starts, each in a process of its own. "cold" starts find no compiled programs, "warm" ones those
of a start before them. CPU seconds are those of the process; other work on the machine changes them less. `load` is
that of the machine, over a minute, when the case began. The step is of BERT-base and GPT-2 (230 million
parameters), 256 tokens, two examples made up, initialisation included.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
STEP = """
from t2i_jax.cli import compiled
compiled.keep()
from benchmarks import common
from t2i_jax import tasks
from t2i_jax.loop.setup import Setup
built = Setup(tasks.make(common.pair_config(256)))
_, metrics = built.step(built.init(), common.made_up(built.task.batch_spec(2)))
float(metrics["loss"])
"""
T2I = [str(Path(sys.executable).with_name("t2i"))]


def start(arguments: list[str], cache: Path) -> tuple[float, float]:
    """Wall and CPU seconds of Python with these arguments."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    environment |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(REPO)}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="run folder of a translator")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache, out = Path(folder) / "cache", Path(folder) / "grid.png"
        sample = [*T2I, "sample", "--run", arguments.run, "--prompt", "a red seven", "--out", str(out)]
        cases = [
            ("import t2i_jax", ["-c", "import t2i_jax"], "warm"),
            ("t2i --help", [*T2I, "--help"], "warm"),
            ("t2i sample", sample, "cold"),
            ("t2i sample", sample, "warm"),
            ("a first training step", ["-c", STEP], "cold"),
            ("a first training step", ["-c", STEP], "warm"),
        ]
        for name, command, state in cases:
            load, times = os.getloadavg()[0], []
            if state == "warm":
                start(command, cache)
            for _ in range(arguments.repeat):
                if state == "cold":
                    shutil.rmtree(cache, ignore_errors=True)
                times.append(start(command, cache))
            wall, cpu = (round(statistics.median(column), 2) for column in zip(*times, strict=True))
            found = {"case": name, "programs": state, "seconds": wall, "cpu_seconds": cpu}
            print(json.dumps(found | {"repeat": arguments.repeat, "load": round(load, 1)}), flush=True)


if __name__ == "__main__":
    main()
