"""A training step of BERT-base and GPT-2 (230 million parameters) beside torch's: a JSON line a case.

    python benchmarks/training.py

Both sides have float32 weights, two examples, dropout 0.1 on branches, none on attention weights, and AdamW. They
take turns, so that other work on the machine falls on both alike; `ratio` is torch's seconds over ours. Torch runs
eagerly, with its fused AdamW. Peak memory is that of a process which does nothing else, after three steps; torch's
has jax imported, too.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from benchmarks import common
from t2i_jax import tasks
from t2i_jax.loop.setup import Setup


def ours(config) -> Callable:
    built = Setup(tasks.make(config))
    shapes = built.task.batch_spec(config.batch_size)
    state, batch = built.init(), common.made_up(shapes)

    def step():
        nonlocal state
        state, metrics = built.step(state, batch)
        return float(jax.block_until_ready((state, metrics))[1]["loss"])

    return step


def peers(config) -> Callable:
    import torch

    model = common.torch_pair(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    shapes = tasks.make(config).batch_spec(config.batch_size)
    batch = {name: torch.tensor(x).long() for name, x in common.made_up(shapes).items()}
    inputs = torch.nn.functional.pad(batch["ids"][:, :-1], (1, 0), value=config.model.codebook_size)

    def step():
        optimizer.zero_grad()
        answer = model(batch["text_ids"], attention_mask=batch["text_mask"], decoder_input_ids=inputs)
        loss = torch.nn.functional.cross_entropy(answer.logits.flatten(0, 1), batch["ids"].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


SIDES = {"ours": ours, "torch": peers}


def peak(tokens: int, side: str) -> float:
    """Gigabytes of a process of its own."""
    command = [sys.executable, __file__, "--tokens", str(tokens), "--side", side]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--side", choices=SIDES, help="three steps of one side, and its peak memory in gigabytes")
    arguments = parser.parse_args()
    for tokens in arguments.tokens:
        config = common.pair_config(tokens)
        if arguments.side:
            step = SIDES[arguments.side](config)
            for _ in range(3):
                step()
            status = Path("/proc/self/status").read_text()
            print(int(status.partition("VmHWM:")[2].split()[0]) / 1e6)
            return
        first, medians = common.in_turns({side: make(config) for side, make in SIDES.items()}, arguments.repeat)
        common.line(
            "training",
            tokens=tokens,
            batch=config.batch_size,
            ours=medians["ours"],
            peer=medians["torch"],
            ratio=medians["torch"] / medians["ours"],
            first_step=first["ours"],
            ours_gigabytes=peak(tokens, "ours"),
            peer_gigabytes=peak(tokens, "torch"),
        )


if __name__ == "__main__":
    main()
