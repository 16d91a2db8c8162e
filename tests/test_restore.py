"""Restoring checkpoints: what is corrupt is named and not used; what cannot be read just now is kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import assert_restored, names_of, save_two, state_of, stream
from damage import DAMAGE

from t2i_jax import files
from t2i_jax.errors import UserError
from t2i_jax.loop import arrays
from t2i_jax.loop.checkpoint import Checkpoints

SAVE_ON_TWO = """
import pathlib, sys
import grain, jax, jax.numpy as jnp
from t2i_jax.loop import sharding
from t2i_jax.loop.checkpoint import Checkpoints
from t2i_jax.loop.state import State
assert len(jax.devices()) == 2
mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "tensor": 1})
params = jax.device_put(jnp.arange(6).reshape(2, 3), sharding.batch(mesh))
assert len(params.addressable_shards) == 2
batches = iter(grain.MapDataset.range(9).to_iter_dataset())
Checkpoints(pathlib.Path(sys.argv[1])).save(State(jnp.int32(4), {"a": params}, {}, {}, {}), batches)
"""


@pytest.fixture
def run(once, tmp_path):
    """A run with checkpoints 2 and 4."""
    return shutil.copytree(once("checkpoints", save_two), tmp_path / "run")


def kinds():
    """Each kind of file that a checkpoint has; data files of Orbax have random names."""
    return [
        "digests.json",
        "data/process_0-of-1.json",
        "state/_METADATA",
        "state/_sharding",
        "state/manifest.ocdbt",
        "state/d/*",
        "state/ocdbt.process_0/manifest.ocdbt",
        "state/ocdbt.process_0/d/*",
        "state/array_metadatas/process_0",
    ]


def test_the_kinds_are_all(run):
    folder = run / "checkpoints" / "4"
    known = {path for kind in kinds() for path in folder.glob(kind)}
    assert {path for path in folder.rglob("*") if path.is_file()} == known


@pytest.mark.parametrize("fault", DAMAGE)
@pytest.mark.parametrize("kind", kinds())
def test_a_corrupt_checkpoint_is_named_and_the_one_before_it_is_used(run, kind, fault, capsys, record_fault):
    record_fault(f"checkpoint's {kind}: {fault}", "tried")
    path = sorted((run / "checkpoints" / "4").glob(kind))[0]
    DAMAGE[fault](path)
    assert_restored(run, 2)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(
        f"warning: checkpoint 4 is not used: {path} is {'missing' if fault == 'missing' else ''}"
    )
    assert second == "warning: using the checkpoint of step 2 instead"
    record_fault(f"checkpoint's {kind}: {fault}", "survived")


def test_a_checkpoint_of_two_devices_gives_its_weights_to_one(tmp_path):
    """As where a run is sampled on another machine than it was trained on."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", SAVE_ON_TWO, tmp_path], env=os.environ | flags)
    assert done.returncode == 0
    params, variables, step = Checkpoints(tmp_path).weights()
    assert step == 4
    np.testing.assert_array_equal(params["a"], np.arange(6).reshape(2, 3))
    assert variables == {}


def test_a_complete_checkpoint_is_restored_without_a_word(run, capsys):
    assert_restored(run, 4)
    params, variables, step = Checkpoints(run).weights()
    assert step == 4
    np.testing.assert_array_equal(params["a"], state_of(4).ema_params["a"])
    np.testing.assert_array_equal(variables["book"], state_of(4).variables["book"])
    assert capsys.readouterr().err == ""


def test_a_state_is_restored_from_shapes_alone(run):
    """So that no other state need be on the devices."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_of(0))
    state, _ = Checkpoints(run).restore(shapes, stream())
    jax.tree.map(np.testing.assert_array_equal, state, state_of(4))


def test_no_complete_checkpoint_is_one_line(run, capsys):
    for step in (2, 4):
        (run / "checkpoints" / str(step) / "digests.json").unlink()
    for use in (lambda: Checkpoints(run).restore(state_of(0), stream()), Checkpoints(run).weights):
        with pytest.raises(UserError, match=r"^no checkpoint in .*checkpoints is complete; delete"):
            use()
        said = capsys.readouterr().err.splitlines()
        assert [line.split(":")[1] for line in said] == [" checkpoint 4 is not used", " checkpoint 2 is not used"]


def test_a_checkpoint_under_the_name_of_another_step_is_not_used(run, capsys):
    (run / "checkpoints" / "4").rename(run / "checkpoints" / "6")
    assert_restored(run, 2)
    assert "checkpoint 6 is not used: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "values", "there", "here"),
    [
        ("params", {"a": jnp.zeros((3, 3))}, r"float32\[2, 3\]", r"float32\[3, 3\]"),
        ("params", {"a": jnp.zeros((2, 3), jnp.bfloat16)}, r"float32\[2, 3\]", r"bfloat16\[2, 3\]"),
        ("ema_params", {}, r"float32\[2, 3\]", "absent"),
        ("variables", {"a": jnp.zeros(3), "book": jnp.zeros(3)}, "absent", r"float32\[3\]"),
    ],
)
def test_a_checkpoint_of_another_model_is_neither_used_nor_passed_over(run, part, values, there, here, read_only):
    """Orbax alone would cast the second one's types without a word."""
    before, checkpoints = read_only(run), Checkpoints(run)
    with pytest.raises(
        UserError,
        match=rf"not fit this config: {part}.a is {there} there and {here} here \(differing: 1 of {part}\);",
    ):
        checkpoints.restore(state_of(0).replace(**{part: values}), stream())
    assert read_only(run) == before
    assert checkpoints.good == 4


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("out of memory")])
@pytest.mark.parametrize("place", [(Path, "read_bytes"), (files, "sha256_of"), (arrays, "read")])
def test_what_is_no_fault_of_a_checkpoint_neither_condemns_it_nor_passes_it_over(
    run, place, error, monkeypatch, read_only, capsys
):
    """A disk that does not answer, memory that is short: the next save must not delete what was good."""

    def fail(*_, **__):
        raise error

    before, checkpoints = read_only(run), Checkpoints(run, 2)
    with monkeypatch.context() as patch:
        patch.setattr(*place, fail)
        with pytest.raises(
            UserError, match=rf"4 cannot be read just now \(.*{error.args[-1]}\); nothing was deleted: "
        ) as said:
            checkpoints.restore(state_of(0), stream())
    assert "\n" not in str(said.value)
    assert read_only(run) == before
    assert capsys.readouterr().err == ""
    checkpoints.save(state_of(6), stream(6))
    assert names_of(run) == ["4", "6"]


def test_a_checkpoint_of_more_hosts_says_so(run):
    folder = run / "checkpoints" / "4"
    (folder / "data" / "process_0-of-1.json").rename(folder / "data" / "process_0-of-2.json")
    (folder / "data" / "process_1-of-2.json").write_text("{}")
    files.write_manifest(folder, step=4, parents={})
    with pytest.raises(UserError, match=r"4 was saved by 2 host\(s\), and now there are 1; use 2$"):
        Checkpoints(run).restore(state_of(0), stream())
