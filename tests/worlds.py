"""A world: a folder that a training fills with data, a tokenizer's run and a translator's, and what is left of it.

All paths in the command are relative to it, so a copy of a world goes on where the original stopped.
"""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import grain
import jax
import msgpack
import orbax.checkpoint as ocp
from etils import epath

REPO = Path(__file__).parents[1]
STEPS = 6
OPTIONS = {  # every random stream draws and every average moves
    "steps": STEPS,
    "checkpoint_every": 2,
    "eval_every": STEPS,
    "ema": 0.9,
}
ONLY_TRANSLATOR = {
    "model.encoder.dropout": 0.1,
    "model.decoder.dropout": 0.1,
    "data.caption_dropout": 0.5,
    "data.code_noise": 0.3,
    "data.data_dir": "data",
    "parents.tokenizer.run": "tokenizer",
}
TOKENIZER = [
    f"--config={REPO}/configs/patch_vqvae.py:smoke",
    "--workdir=tokenizer",
    "--config.data.data_dir=data",
    *(f"--config.{name}={value}" for name, value in OPTIONS.items()),
]
TRANSLATOR = [
    f"--config={REPO}/configs/translator.py:smoke",
    "--workdir=translator",
    *(f"--config.{name}={value}" for name, value in (OPTIONS | ONLY_TRANSLATOR).items()),
    *(f"--config.parents.tokenizer.config.{name}={value}" for name, value in OPTIONS.items()),
]


def start(world, *faults, argv=TRANSLATOR):
    """The training command as a process of its own; `faults` as in `saboteur.py`."""
    Path(world).mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    command = [sys.executable, str(REPO / "tests" / "saboteur.py"), json.dumps(faults), *argv]
    return subprocess.Popen(command, cwd=world, env=environment, stderr=subprocess.PIPE, text=True)


# What TensorStore prints, now and then, of writes that end after one of them found the disk full.
LATE_WRITES = re.compile(r"Traceback \(most recent call last\):\n(?:  .*\n)+RuntimeError: Event loop is closed\n")


def run(world, *faults, argv=TRANSLATOR):
    """The command's exit code and its lines on stderr, none of them of a traceback."""
    with start(world, *faults, argv=argv) as process:
        try:
            said = process.communicate(timeout=300)[1]
        finally:
            process.kill()
    said = LATE_WRITES.sub("", said)
    assert "Traceback" not in said, said
    return process.returncode, said.replace("\r", "\n").splitlines()


def checkpoint_of(run, step):
    """All arrays of a checkpoint by name, and its place in the data."""
    folder = (run / "checkpoints" / str(step)).resolve()
    state = ocp.PyTreeCheckpointHandler().restore(epath.Path(folder / "state"))
    place = next((folder / "data").glob("process*")).read_bytes()
    return {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(state)}, place


def batches_of(world):
    """The digests of each batch that was trained on, by run and step: a set of one, if all is well."""
    seen = {}
    for line in (world / "batches").read_text().splitlines():
        name, step, digest = line.split()
        seen.setdefault((name, int(step)), set()).add(digest)
    return seen


def tokens_of(world):
    """The records of each token shard."""
    shards = {}
    for path in sorted((world / "tokenizer" / "tokens").rglob("*.array_record")):
        records = grain.sources.ArrayRecordDataSource(str(path))
        shards[path.relative_to(world)] = [msgpack.unpackb(records[i]) for i in range(len(records))]
    return shards


def assert_same_checkpoint(run, other, step, *kinds):
    """Two runs' checkpoints of a step are alike bit for bit, and hold these kinds of arrays beside the usual."""
    arrays, place = checkpoint_of(run, step)
    expected, expected_place = checkpoint_of(other, step)
    assert place == expected_place
    assert arrays.keys() == expected.keys()
    for kind in ("params", "opt_state", "mu", "step", *kinds):
        assert any(kind in name for name in arrays), kind
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        assert array.tobytes() == expected[name].tobytes(), name


def assert_same_run(run, other):
    """Two run folders hold the same, bit for bit."""
    names = ["config.json", "model.safetensors", "scores.json"]
    if (other / "text_tokenizer.json").exists():
        names += ["text_tokenizer.json", *(f"parents/tokenizer/{name}" for name in names)]
    for name in names:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    assert_same_checkpoint(run, other, STEPS, "ema_params")
    rubbish = [path for path in run.rglob("*") if path.name.endswith((".partial", ".old")) or "tmp" in path.name]
    assert not rubbish, rubbish


def assert_same_world(world, other):
    """Two worlds have ended alike, and were trained on the same batches."""
    for name in ("tokenizer", "translator"):
        assert_same_run(world / name, other / name)
    assert tokens_of(world) == tokens_of(other)
    seen, expected = batches_of(world), batches_of(other)
    assert len(expected) == 2 * STEPS
    assert seen == expected
    for name in ("patch_vqvae-smoke", "translator-smoke"):
        digests = [seen[name, step] for step in range(1, STEPS + 1)]
        assert all(len(digest) == 1 for digest in digests)
        assert all(one != other for one, other in pairwise(digests))
