"""Saving checkpoints: nothing old goes before the new one stands, and a save that fails leaves nothing."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest
from checkpoints import assert_restored, names_of, save_two, state_of, stream

from t2i_jax import files
from t2i_jax.errors import UserError
from t2i_jax.loop import arrays
from t2i_jax.loop.checkpoint import Checkpoints


@pytest.fixture
def run(once, tmp_path):
    """A run with checkpoints 2 and 4."""
    return shutil.copytree(once("checkpoints", save_two), tmp_path / "run")


def test_a_save_makes_no_second_copy_of_the_state_on_the_devices(tmp_path, monkeypatch):
    """What a model that just fits has no room for."""

    def bytes_of_devices():
        """Of all arrays, once where two are views of one buffer."""
        return sum({array.unsafe_buffer_pointer(): array.nbytes for array in jax.live_arrays()}.values())

    state, seen = state_of(2), []
    read = ocp.PyTreeCheckpointHandler.restore

    def watch(self, directory, args):
        restored = read(self, directory, args=args)
        seen.append(bytes_of_devices())
        assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
        return restored

    monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "restore", watch)
    monkeypatch.setattr(arrays, "COMPARED_AT_ONCE", 30)  # an array or two
    before = bytes_of_devices()
    Checkpoints(tmp_path).save(state, stream())
    assert seen == [before] * len(seen)
    assert 3 <= len(seen) <= len(jax.tree.leaves(state))


def test_bits_are_compared_not_numbers(tmp_path):
    """NaNs are equal to themselves, and -0 is not 0."""
    kinds = {"nan": jnp.array([jnp.nan, 1.0], jnp.bfloat16), "zero": jnp.zeros(())}
    arrays.write(tmp_path, kinds)
    arrays.finish(tmp_path)
    arrays.check_equal(tmp_path, kinds)
    with pytest.raises(OSError, match=r"^\['zero'\] does not read back"):
        arrays.check_equal(tmp_path, kinds | {"zero": -jnp.zeros(())})


def fail_at(moment, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    def write_another(folder, state):
        write(folder, state.replace(params={"a": state.params["a"].at[0, 0].add(1)}))

    def write_another_position(path, text):
        path.write_bytes(text.replace("6", "5").encode())

    write = arrays.write
    places = {
        "writing": (arrays, "write", fail),
        "finishing": (arrays, "finish", fail),
        "reading back": (arrays, "write", write_another),
        "reading back the position": (Path, "write_text", write_another_position),
        "sealing": (files, "write_manifest", fail),
        "renaming": (Path, "rename", fail),
    }
    monkeypatch.setattr(*places[moment])


@pytest.mark.parametrize(
    "moment", ["writing", "finishing", "reading back", "reading back the position", "sealing", "renaming"]
)
def test_a_save_that_fails_keeps_what_there_was_and_leaves_no_rubbish(run, moment, monkeypatch, read_only):
    before = read_only(run)
    with monkeypatch.context() as patch:
        fail_at(moment, patch)
        with pytest.raises(UserError) as error:
            Checkpoints(run, 2).save(state_of(6), stream(6))
    said = str(error.value)
    assert said.startswith(f"the checkpoint of step 6 cannot be saved in {run / 'checkpoints'}: ")
    assert ("does not read back" if moment.startswith("reading back") else "No space left on device") in said
    assert "; that of step 4 stands; " in said
    assert ("; make room, and the same command continues" in said) == ("No space left" in said)
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


def test_a_path_that_orbax_takes_for_a_pattern_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(
        UserError, match=r"a\[1\] has a '\[' in it, which Orbax takes for a pattern; choose another"
    ):
        Checkpoints(tmp_path / "a[1]")


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
    for name in ("2.old", "6.partial"):
        shutil.copytree(folder / "2", folder / name)
    (folder / "notes.txt").write_text("mine")
    assert Checkpoints(run).steps == [4, 2]
    assert_restored(run, 4)
    assert names_of(run) == ["2", "4", "notes.txt"]
    Checkpoints(run, 2).save(state_of(6), stream(6))
    assert names_of(run) == ["4", "6", "notes.txt"]


def test_a_corrupt_checkpoint_is_replaced_when_its_step_comes_again(run, capsys):
    (run / "checkpoints" / "4" / "digests.json").unlink()
    Checkpoints(run, 2).save(state_of(4), stream(4))
    assert names_of(run) == ["2", "4"]
    assert_restored(run, 4)
    assert capsys.readouterr().err == ""


def test_a_corrupt_checkpoint_goes_before_the_good_one_that_was_used_instead(run, monkeypatch):
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


def test_the_parents_of_a_run_are_remembered(run):
    checkpoints = Checkpoints(run, 1)
    checkpoints.parents = {"tokenizer": "abc", "base": "xyz"}
    checkpoints.save(state_of(6), stream(6))
    parents = {"base": ("xyz", "runs/base"), "tokenizer": ("abc", "runs/vqvae")}
    Checkpoints(run).check_parents(parents)
    Checkpoints(run).check_parents({})
    for name, shown in (("tokenizer", "runs/vqvae"), ("base", "runs/base")):
        with pytest.raises(UserError, match=rf"^{run} was trained on another {name} than {shown} holds now; "):
            Checkpoints(run).check_parents(parents | {name: ("abd", shown)})
    (run / "checkpoints" / "6" / "digests.json").unlink()
    Checkpoints(run).check_parents(parents | {"base": ("abd", "runs/base")})
