"""One of two hosts that save and restore a state which neither holds whole: `two_hosts.py FOLDER`, joined as the
environment says. Each prints what it sees, one JSON object a line.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import grain
import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import hosts
from t2i_jax.errors import UserError
from t2i_jax.loop import arrays, sharding
from t2i_jax.loop.checkpoint import Checkpoints
from t2i_jax.loop.state import State


def state_of(step):
    """A kernel that is sharded over the hosts, and a step number that both have."""
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
    kernel = np.arange(16.0, dtype=np.float32).reshape(8, 2) + step
    rows = sharding.batch(mesh)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    params = {"kernel": jax.make_array_from_callback((8, 2), rows, lambda index: kernel[index])}
    number = jax.make_array_from_callback((), everywhere, lambda _: np.int32(step))
    return State(number, params, {}, {}, {})


def stream(rank, at):
    """This host's half of the data."""
    batches = iter(grain.MapDataset.range(20)[rank::2].to_iter_dataset())
    for _ in range(at):
        next(batches)
    return batches


def main(folder):
    hosts.start()
    rank, run = jax.process_index(), Path(folder)

    def tell(**seen):
        seen["folders"] = sorted(path.name for path in (run / "checkpoints").iterdir())
        print(json.dumps(seen), flush=True)
        jax.experimental.multihost_utils.sync_global_devices("both have looked before either goes on")

    def restore(checkpoints):
        state, batches = checkpoints.restore(state_of(0), stream(rank, 0))
        rows = [shard.data.ravel().tolist() for shard in state.params["kernel"].addressable_shards]
        tell(step=int(state.step), rows=rows, next=int(next(batches)))

    checkpoints = Checkpoints(run, 2)
    for step in (1, 2, 3):
        checkpoints.save(state_of(step), stream(rank, step))
    restore(Checkpoints(run))

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    # One host alone cannot write, cannot compare, or cannot read: the other must not wait for it.
    for name in ("write", "check_equal"):
        with mock.patch.object(arrays, name, fail if rank == 1 else getattr(arrays, name)):
            try:
                checkpoints.save(state_of(4), stream(rank, 4))
            except UserError as error:
                tell(failed=name, said=str(error))
    with mock.patch.object(arrays, "read", fail if rank == 1 else arrays.read):
        try:
            Checkpoints(run).restore(state_of(0), stream(rank, 0))
        except UserError as error:
            tell(failed="read", said=str(error))

    if rank == 0:
        (run / "checkpoints" / "3" / "digests.json").unlink()
    checkpoints = Checkpoints(run, 2)
    restore(checkpoints)
    checkpoints.save(state_of(5), stream(rank, 5))
    tell(total=float(jnp.sum(state_of(0).params["kernel"])))


if __name__ == "__main__":
    main(sys.argv[1])
