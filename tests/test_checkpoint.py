"""Checkpoints: what is damaged is named and not used, and nothing old goes before the new one stands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import files
from t2i_jax.errors import UserError
from t2i_jax.loop.checkpoint import Checkpoints
from t2i_jax.loop.state import State

DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "missing": lambda path: path.unlink(),
}

SAVE_ON_TWO = """
import pathlib, sys
import grain, jax, jax.numpy as jnp
from t2i_jax.loop import sharding
from t2i_jax.loop.checkpoint import Checkpoints
from t2i_jax.loop.state import State
assert len(jax.devices()) == 2
params = jax.device_put(jnp.arange(6).reshape(2, 3), sharding.batch(sharding.make_mesh()))
assert len(params.addressable_shards) == 2
batches = iter(grain.MapDataset.range(9).to_iter_dataset())
Checkpoints(pathlib.Path(sys.argv[1])).save(State(jnp.int32(4), {"a": params}, {}, {}, {}), batches)
"""


def state_of(step):
    values = jnp.arange(6.0).reshape(2, 3) + step
    key = jax.random.key_data(jax.random.key(step))
    return State(
        jnp.int32(step), {"a": values}, {"mu": -values, "count": key}, {"book": values[0]}, {"a": values / 3}
    )


def stream(at=0):
    batches = iter(grain.MapDataset.range(100).seed(0).shuffle().repeat().batch(2).to_iter_dataset())
    for _ in range(at):
        next(batches)
    return batches


def names_of(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with checkpoints 2 and 4; for reading only."""
    folder = tmp_path_factory.mktemp("run")
    for step in (2, 4):
        Checkpoints(folder, 2).save(state_of(step), stream(step))
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def assert_restored(run, step):
    state, batches = Checkpoints(run).restore(state_of(0), stream())
    jax.tree.map(np.testing.assert_array_equal, state, state_of(step))
    np.testing.assert_array_equal(next(batches), next(stream(step)))


def kinds():
    """Each kind of file that a checkpoint has; data files of Orbax have random names."""
    return [
        "digests.json",
        "_CHECKPOINT_METADATA",
        "data/process_0-of-1.json",
        "state/_METADATA",
        "state/_sharding",
        "state/manifest.ocdbt",
        "state/d/*",
        "state/ocdbt.process_0/manifest.ocdbt",
        "state/ocdbt.process_0/d/*",
        "state/array_metadatas/process_0",
    ]


def test_the_kinds_are_all(made):
    folder = made / "checkpoints" / "4"
    known = {path for kind in kinds() for path in folder.glob(kind)}
    others = {path.name for path in folder.rglob("*") if path.is_file()} - {path.name for path in known}
    assert others <= {"commit_success.txt"}  # a mark; its content is a word


@pytest.mark.parametrize("fault", DAMAGE)
@pytest.mark.parametrize("kind", kinds())
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(run, kind, fault, capsys, record_fault):
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
    assert len(params["a"].sharding.device_set) == 1
    assert variables == {}


def test_a_whole_checkpoint_is_restored_without_a_word(run, capsys):
    assert_restored(run, 4)
    params, variables, step = Checkpoints(run).weights()
    assert step == 4
    np.testing.assert_array_equal(params["a"], state_of(4).ema_params["a"])
    np.testing.assert_array_equal(variables["book"], state_of(4).variables["book"])
    assert capsys.readouterr().err == ""


def test_no_whole_checkpoint_is_one_line(run, capsys):
    for step in (2, 4):
        (run / "checkpoints" / str(step) / "digests.json").unlink()
    for use in (lambda: Checkpoints(run).restore(state_of(0), stream()), Checkpoints(run).weights):
        with pytest.raises(
            UserError, match=r"^no checkpoint in .*checkpoints is whole and fits this config; delete"
        ):
            use()
        said = capsys.readouterr().err.splitlines()
        assert [line.split(":")[1] for line in said] == [" checkpoint 4 is not used", " checkpoint 2 is not used"]


def test_a_checkpoint_under_the_name_of_another_step_is_not_used(run, capsys):
    (run / "checkpoints" / "4").rename(run / "checkpoints" / "6")
    assert_restored(run, 2)
    assert "checkpoint 6 is not used: " in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_not_used(run):
    other = state_of(0).replace(params={"a": jnp.zeros((3, 3))})
    with pytest.raises(UserError, match="fits this config"):
        Checkpoints(run).restore(other, stream())


def fail_at(moment, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    def differ(self, folder, *args, **others):
        restored = read(self, folder, *args, **others)
        return {**restored, "state": restored["state"].replace(params={"a": jnp.ones((2, 3))})}

    def lose_the_place(self, directory, *args, **others):
        write(self, directory, *args, **others)
        path = next(Path(directory).glob("process_*"))
        path.write_text(path.read_text().replace("6", "5"))

    read, write = Checkpoints._read, grain.checkpoint.CheckpointHandler.save
    places = {
        "writing": (grain.checkpoint.CheckpointHandler, "save", fail),
        "reading back": (Checkpoints, "_read", differ),
        "reading back the place": (grain.checkpoint.CheckpointHandler, "save", lose_the_place),
        "sealing": (files, "seal", fail),
        "renaming": (Path, "rename", fail),
    }
    monkeypatch.setattr(*places[moment])


@pytest.mark.parametrize("moment", ["writing", "reading back", "reading back the place", "sealing", "renaming"])
def test_a_save_that_fails_keeps_what_there_was_and_leaves_no_rubbish(run, moment, monkeypatch, read_only):
    before = read_only(run)
    with monkeypatch.context() as patch:
        fail_at(moment, patch)
        with pytest.raises(UserError) as error:
            Checkpoints(run, 2).save(state_of(6), stream(6))
    said = str(error.value)
    assert said.startswith(f"the checkpoint of step 6 cannot be saved in {run / 'checkpoints'}: ")
    assert ("does not read back" if moment.startswith("reading back") else "No space left on device") in said
    assert "; that of step 4 stands; make room" in said
    assert "\n" not in said
    assert read_only(run) == before
    assert names_of(run) == ["2", "4"]
    Checkpoints(run, 2).save(state_of(6), stream(6))
    assert_restored(run, 6)


def test_a_first_save_that_fails_says_that_there_is_none(tmp_path, monkeypatch):
    fail_at("writing", monkeypatch)
    with pytest.raises(UserError, match="there is none before it"):
        Checkpoints(tmp_path, 2).save(state_of(2), stream())
    assert names_of(tmp_path) == []


def test_the_old_ones_go_after_the_new_one_stands(run, monkeypatch):
    seen, remove = [], shutil.rmtree

    def watch(path, *args, **options):
        if Path(path).suffix == ".old":
            seen.append(Path(path))
            assert files.verify_manifest(run / "checkpoints" / "6")["step"] == 6
        remove(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", watch)
        Checkpoints(run, 2).save(state_of(6), stream(6))
    assert [path.name for path in seen] == ["2.old"]
    assert names_of(run) == ["4", "6"]
    Checkpoints(run, 1).save(state_of(8), stream(8))
    assert names_of(run) == ["8"]


def test_what_a_kill_left_is_swept_and_what_is_not_ours_stays(run):
    folder = run / "checkpoints"
    for name in ("2.old", "6.partial", "6.partial.orbax-checkpoint-tmp"):
        shutil.copytree(folder / "2", folder / name)
    (folder / "notes.txt").write_text("mine")
    assert Checkpoints(run).steps == [4, 2]
    assert_restored(run, 4)
    assert names_of(run) == ["2", "4", "notes.txt"]
    Checkpoints(run, 2).save(state_of(6), stream(6))
    assert names_of(run) == ["4", "6", "notes.txt"]


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(run, capsys):
    (run / "checkpoints" / "4" / "digests.json").unlink()
    Checkpoints(run, 2).save(state_of(4), stream(4))
    assert names_of(run) == ["2", "4"]
    assert_restored(run, 4)
    assert capsys.readouterr().err == ""


def test_a_damaged_checkpoint_goes_before_the_good_one_that_was_used_instead(run, monkeypatch):
    (run / "checkpoints" / "4" / "digests.json").unlink()
    checkpoints = Checkpoints(run, 2)
    checkpoints.restore(state_of(0), stream())
    assert checkpoints.good == 2
    with monkeypatch.context() as patch:
        fail_at("writing", patch)
        with pytest.raises(UserError, match="; that of step 2 stands; "):
            checkpoints.save(state_of(6), stream(6))
    checkpoints.save(state_of(6), stream(6))
    assert names_of(run) == ["2", "6"]
    checkpoints.save(state_of(8), stream(8))
    assert names_of(run) == ["6", "8"]


def test_what_a_run_was_made_from_is_remembered(run):
    checkpoints = Checkpoints(run, 1)
    checkpoints.made_from = "abc"
    checkpoints.save(state_of(6), stream(6))
    Checkpoints(run).check_made_from("abc", "tokenizer")
    with pytest.raises(UserError, match=r"tokens of another tokenizer than tokenizer holds now; choose another"):
        Checkpoints(run).check_made_from("abd", "tokenizer")
    (run / "checkpoints" / "6" / "digests.json").unlink()
    Checkpoints(run).check_made_from("abd", "tokenizer")
