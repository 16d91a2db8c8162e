"""A training step of BERT-base and GPT-2 (230 million parameters) beside torch's: a JSON line or two a case.

    python benchmarks/training.py
    python benchmarks/training.py --tokens 256 --batch 1 2 4 8
    python benchmarks/training.py --sides ours_bfloat16 torch torch_bfloat16

Both sides have float32 weights, dropout 0.1 on branches, none on attention weights, and AdamW. Torch runs
eagerly, with its fused AdamW. Each side has a process of its own, with huge pages as `t2i train` has them; they
take turns, so that other work on the machine falls on both alike. A turn is three steps, the first of which is
not counted: a virtual machine has to get back from its host what it has not used for seconds. (In one process, as
this was done before 2026-11-28, our step takes up to 1.6 times as long.) `ratio` is torch's seconds over ours. A
side with bfloat16 in its name has `config.matmul` "bfloat16", or torch's autocast: ours gets a line of its own,
with torch in float32 as its peer, and as `autocast` the seconds of torch's autocast over its own.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from benchmarks import common
from t2i_jax import tasks
from t2i_jax.cli import memory
from t2i_jax.loop.setup import Setup


def ours(config) -> Callable:
    """By `config.matmul`."""
    built = Setup(tasks.make(config))
    shapes = built.task.batch_spec(config.batch_size)
    state, batch = built.init(), common.made_up(shapes)

    def step():
        nonlocal state
        state, metrics = built.step(state, batch)
        return float(jax.block_until_ready((state, metrics))[1]["loss"])

    return step


def peers(config) -> Callable:
    """In float32, or where `config.matmul` is "bfloat16" under autocast."""
    import torch

    model = common.torch_pair(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    shapes = tasks.make(config).batch_spec(config.batch_size)
    batch = {name: torch.tensor(x).long() for name, x in common.made_up(shapes).items()}
    inputs = torch.nn.functional.pad(batch["ids"][:, :-1], (1, 0), value=config.model.codebook_size)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=config.matmul == "bfloat16"):
            answer = model(batch["text_ids"], attention_mask=batch["text_mask"], decoder_input_ids=inputs)
        loss = torch.nn.functional.cross_entropy(answer.logits.float().flatten(0, 1), batch["ids"].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


SIDES = {
    "ours": (ours, "float32"),
    "torch": (peers, "float32"),
    "ours_bfloat16": (ours, "bfloat16"),
    "torch_bfloat16": (peers, "bfloat16"),
}


def work(tokens: int, batch: int, side: str) -> None:
    """Take three steps for each line that is read: seconds of the first, and of others; last, peak gigabytes."""
    make, matmul = SIDES[side]
    step = make(common.pair_config(tokens, batch, matmul))
    for _ in sys.stdin:
        times = [time.perf_counter()]
        for _ in range(3):
            step()
            times.append(time.perf_counter())
        print(times[1] - times[0], (times[3] - times[1]) / 2, flush=True)
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1e6)


class Worker:
    """A process that takes three steps when it is called: seconds of the first, and the mean of the others."""

    def __init__(self, tokens: int, batch: int, side: str):
        sizes = "--tokens", str(tokens), "--batch", str(batch)
        command = [sys.executable, __file__, *sizes, "--side", side]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=os.environ | {memory.TUNABLES: memory.HUGE}, **pipes)

    def __call__(self) -> tuple[float, float]:
        print(file=self._process.stdin, flush=True)
        if not (line := self._process.stdout.readline()):
            sys.exit("a side has ended; its error stands above")
        first, others = map(float, line.split())
        return first, others

    def peak(self) -> float:
        """Gigabytes; the process ends."""
        return float(self._process.communicate()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--batch", nargs="+", type=int, default=[2], help="examples a step; 2 where left out")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["ours", "torch"], help="torch among them")
    parser.add_argument("--side", choices=SIDES, help="a process of one side; the program starts them itself")
    arguments = parser.parse_args()
    if arguments.side:
        work(*arguments.tokens, *arguments.batch, arguments.side)
        return
    for tokens, batch in itertools.product(arguments.tokens, arguments.batch):
        workers = {side: Worker(tokens, batch, side) for side in arguments.sides}
        first = {side: worker()[0] for side, worker in workers.items()}
        turns = [{side: worker()[1] for side, worker in workers.items()} for _ in range(arguments.repeat)]
        medians = {side: statistics.median(turn[side] for turn in turns) for side in workers}
        peaks = {side: worker.peak() for side, worker in workers.items()}
        for side in [side for side in workers if side.startswith("ours")]:
            kind = side.removeprefix("ours")
            autocast = {}
            if kind and "torch" + kind in workers:
                autocast = {"autocast": medians["torch" + kind] / medians[side]}
            common.line(
                "training" + kind,
                ratio=medians["torch"] / medians[side],
                **autocast,
                tokens=tokens,
                batch=batch,
                ours=medians[side],
                peer=medians["torch"],
                first_step=first[side],
                ours_gigabytes=peaks[side],
                peer_gigabytes=peaks["torch"],
            )


if __name__ == "__main__":
    main()
