"""train.py with a witness and, at a named moment, a fault: `saboteur.py FAULTS flags...`.

FAULTS is a JSON list of `[action, moment]`. Every batch that a step gets is written to the file `batches`, as run,
step and sha256. The fault comes from inside, so that it comes at that moment on any machine.
"""

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from t2i_jax import cli
from t2i_jax.loop import setup


def ends(*ending):
    """A file's or folder's path, the first argument, ends like this."""
    return lambda path, *_, **__: Path(path).parts[-len(ending) :] == ending


def pictures(count):
    return lambda _, images: len(images) == count


def step(number, run=""):
    return lambda name, step: step == number and name.startswith(run)


def step_of_state(step):
    return lambda _, state, *__: int(state.step) == step


def weights_of(step):
    return lambda *arguments: arguments[-1] == step


def always(*_, **__):
    return True


AFTER, BEFORE = True, False
MOMENTS = {  # what is called; which calls count; the number of the one that is meant; after it or before it
    "preparing data": ("t2i_jax.data.scenes:render", always, 300, BEFORE),
    "data prepared, not sealed": ("t2i_jax.files:write_manifest", ends("tiny", "1.3.0"), 1, BEFORE),
    "k-means": ("t2i_jax.tasks.reconstruct:kmeans_codebooks", always, 1, BEFORE),
    "step 1": ("__main__:take", step(1), 1, BEFORE),
    "step 5": ("__main__:take", step(5), 1, BEFORE),
    "translator's step 1": ("__main__:take", step(1, "translator"), 1, BEFORE),
    "translator's step 5": ("__main__:take", step(5, "translator"), 1, BEFORE),
    "checkpoint begun": ("t2i_jax.loop.checkpoint:Checkpoints.save", step_of_state(4), 1, BEFORE),
    "checkpoint half written": ("t2i_jax.loop.arrays:write", ends("4.partial", "state"), 1, AFTER),
    "checkpoint written, not sealed": ("t2i_jax.files:write_manifest", ends("4.partial"), 1, BEFORE),
    "checkpoint sealed, not renamed": ("t2i_jax.files:write_manifest", ends("4.partial"), 1, AFTER),
    "checkpoint renamed, weights not written": ("t2i_jax.runs:write_weights", weights_of(4), 1, BEFORE),
    "old checkpoint half deleted": ("shutil:rmtree", ends("2.old"), 1, BEFORE),
    "weights written, not renamed": ("pathlib:Path.replace", ends("model.safetensors.partial"), 1, BEFORE),
    "scores written, not renamed": ("pathlib:Path.replace", ends("scores.json.partial"), 1, BEFORE),
    "data half sealed": ("pathlib:Path.replace", ends("1.3.0", "digests.json.partial"), 1, BEFORE),
    "translator's weights written, not renamed": (
        "pathlib:Path.replace",
        ends("translator", "model.safetensors.partial"),
        1,
        BEFORE,
    ),
    "translator's scores written, not renamed": (
        "pathlib:Path.replace",
        ends("translator", "scores.json.partial"),
        1,
        BEFORE,
    ),
    "encoding": ("t2i_jax.pipelines:Tokenizer.tokenize", pictures(256), 2, BEFORE),
    "tokens written, not renamed": ("t2i_jax.files:write_manifest", ends("train.partial"), 1, AFTER),
    "encoding the second split": ("t2i_jax.pipelines:Tokenizer.tokenize", pictures(64), 1, BEFORE),
    "text tokenizer written, not renamed": ("pathlib:Path.replace", ends("text_tokenizer.json.partial"), 1, BEFORE),
    "copying the tokenizer": (
        "pathlib:Path.replace",
        ends("parents", "tokenizer", "model.safetensors.partial"),
        1,
        BEFORE,
    ),
}


def kill(*args):
    if args and Path(str(args[0])).name.endswith(".old"):  # half of it is gone already
        Path(args[0], "digests.json").unlink()
        shutil.rmtree(Path(args[0], "data"))
    os.kill(os.getpid(), signal.SIGKILL)


def copy(*_):
    """What a kill would leave, while the run goes on."""
    shutil.copytree(".", "../interrupted")


def stop(*_):
    """Say so, and wait for the kill."""
    Path("stopped").touch()
    signal.pause()


def fill(*_):
    """Leave no room on this disk."""
    with open("ballast", "wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


ACTIONS = {"kill": kill, "copy": copy, "fill": fill, "stop": stop}


def plant(action, moment):
    """Let a fault come at a moment."""
    target, fits, number, first = MOMENTS[moment]
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = sys.modules[__name__] if module == "__main__" else importlib.import_module(module)
    for attribute in owners:
        owner = getattr(owner, attribute)
    original, seen = getattr(owner, name), 0

    def call(*args, **kwargs):
        nonlocal seen
        fitting = fits(*args, **kwargs)
        seen += fitting
        meant = fitting and seen == number
        if meant and not first:
            ACTIONS[action](*args)
        result = original(*args, **kwargs)
        if meant and first:
            ACTIONS[action](*args)
        return result

    setattr(owner, name, call)


def take(run, step):
    """A step is about to be taken."""


def watch(setup):
    """Write down what each step is given."""
    original = setup.Setup.step

    def step(self, state, batch):
        digest = hashlib.sha256(repr(sorted((name, value.shape) for name, value in batch.items())).encode())
        for name in sorted(batch):
            digest.update(np.ascontiguousarray(batch[name]).tobytes())
        name, number = self.config.name, int(state.step) + 1
        with open("batches", "a") as file:
            file.write(f"{name} {number} {digest.hexdigest()}\n")
        take(name, number)
        return original(self, state, batch)

    setup.Setup.step = step


def main():
    faults = json.loads(sys.argv.pop(1))
    watch(setup)
    for action, moment in faults:
        plant(action, moment)
    sys.argv[0] = "train.py"
    sys.exit(cli.main(["train", *sys.argv[1:]], program="train.py"))


if __name__ == "__main__":
    main()
