"""Run folders: weights that vouch for themselves, and every kind of damage said in one line."""

import json
import struct

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import safetensors.numpy

from t2i_jax import files, runs
from t2i_jax.errors import UserError
from t2i_jax.loop import continuing

PARAMS = {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)}}
VARIABLES = {"codebook": {"quantizer": {"cluster_size": np.full(4, 0.25, np.float32)}}}


def make_config(**changes):
    config = ml_collections.ConfigDict(
        {"name": "test", "steps": 3, "optim": {"lr": 0.1}, "tags": ("a", "b"), "task": "t", "model_name": "m"}
    )
    config.update({"model": {}, "data": {"data_dir": "a"}, "sampling": {}})
    config.update(changes)
    return config


@pytest.fixture
def run(tmp_path):
    folder = runs.make_folder(tmp_path / "a" / "run")
    runs.write_config(folder, make_config())
    runs.write_weights(folder, PARAMS, VARIABLES, 3)
    return folder


def refusal(function, *args, **options):
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_weights_come_back_as_they_went(run):
    params, variables, step, digest = runs.read_weights(run)
    assert step == 3
    assert set(params["dense"]) == {"kernel", "bias"}
    for name, value in PARAMS["dense"].items():
        assert params["dense"][name].dtype == value.dtype
        np.testing.assert_array_equal(params["dense"][name], value)
    frequency = variables["codebook"]["quantizer"]["cluster_size"]
    np.testing.assert_array_equal(frequency, VARIABLES["codebook"]["quantizer"]["cluster_size"])
    assert runs.read_weights(run)[3] == digest


def test_the_digest_depends_on_names_values_and_step(tmp_path):
    digests = set()
    for params, variables, step in [
        (PARAMS, VARIABLES, 3),
        (PARAMS, VARIABLES, 4),
        (PARAMS, {}, 3),
        ({"dense": {**PARAMS["dense"], "kernel": PARAMS["dense"]["kernel"].T}}, VARIABLES, 3),
        ({"dense": {**PARAMS["dense"], "kernel": PARAMS["dense"]["kernel"].at[0, 0].set(1e-7)}}, VARIABLES, 3),
        ({"other": PARAMS["dense"]}, VARIABLES, 3),
    ]:
        runs.write_weights(tmp_path, params, variables, step)
        digests.add(runs.read_weights(tmp_path)[3])
    assert len(digests) == 6


@pytest.mark.parametrize("place", ["header", "first tensor", "last byte", "metadata"])
def test_one_flipped_byte_is_noticed(run, place):
    path = run / runs.WEIGHTS
    content = bytearray(path.read_bytes())
    header = struct.unpack("<Q", content[:8])[0]
    metadata = content.index(b'step\\": 3') + 8
    at = {"header": 8, "first tensor": 8 + header, "last byte": -1, "metadata": metadata}[place]
    content[at] ^= 1
    path.write_bytes(content)
    assert f"{path} is corrupt" in refusal(runs.read_weights, run)
    assert not continuing.is_finished(run, make_config())


@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_a_cut_file_is_noticed(run, size):
    path = run / runs.WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    assert f"{path} is corrupt" in refusal(runs.read_weights, run)


def test_weights_of_another_program_are_refused(run):
    import safetensors.numpy

    (run / runs.WEIGHTS).write_bytes(safetensors.numpy.save({"params/a": np.ones(2)}))
    assert "is corrupt" in refusal(runs.read_weights, run)


def test_missing_weights_and_folders_are_named(run, tmp_path):
    (run / runs.WEIGHTS).unlink()
    assert "has no weights; train it" in refusal(runs.read_weights, run)
    assert not continuing.is_finished(run, make_config())
    assert not continuing.is_finished(tmp_path / "absent", make_config())
    assert "does not exist" in refusal(runs.read_config, tmp_path / "absent")
    assert "is no run folder" in refusal(runs.read_config, tmp_path)
    (tmp_path / "file").write_text("")
    assert "file" in refusal(runs.read_config, tmp_path / "file")


@pytest.mark.parametrize("content", [b"", b'{"steps": 3', b"3", b"null", b'"a"', b"\xff\xfe", b"[1]"])
def test_a_broken_config_is_one_line_to_read_and_to_continue(run, content, capsys):
    (run / runs.CONFIG).write_bytes(content)
    assert "config.json" in refusal(runs.read_config, run)
    assert "config.json" in refusal(continuing.check_config_change, run, make_config())
    assert not continuing.is_finished(run, make_config())
    assert (run / runs.CONFIG).read_bytes() == content
    continuing.check_config_change(run, make_config(), accept=True)
    assert f"accepted config change: {run / runs.CONFIG} is corrupt" in capsys.readouterr().err


def test_a_config_of_someone_else_is_refused(run):
    files.write_json(run / runs.CONFIG, {"task": "translate"})
    assert "has no field 'model_name'" in refusal(runs.read_config, run)


def test_a_finished_run_must_be_the_one_that_is_named(run):
    continuing.check_same(run, make_config(data={"data_dir": "elsewhere"}))
    message = refusal(continuing.check_same, run, make_config(steps=9))
    assert "steps: 3 -> 9" in message
    assert "name another run" in message


def test_a_config_comes_back_frozen(run):
    config = runs.read_config(run)
    assert config.optim.lr == 0.1
    assert config.tags == ("a", "b")
    hash(config)


def test_the_same_config_is_taken_up_and_another_one_is_not(run, capsys):
    continuing.check_config_change(run, make_config())
    message = refusal(continuing.check_config_change, run, make_config(steps=4, optim={"lr": 0.2}))
    assert "optim.lr: 0.1 -> 0.2; steps: 3 -> 4" in message
    assert "--accept-config-change" in message
    assert capsys.readouterr().err == ""
    continuing.check_config_change(run, make_config(steps=4), accept=True)
    assert capsys.readouterr().err == "warning: accepted config change: steps: 3 -> 4\n"
    assert runs.read_config(run).steps == 3  # `write_config` is called once the checkpoint is restored


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 8}, "the place in the data is counted in batches"),
        ({"data": {"data_dir": "b"}}, "the place in the data stays at batch 2: in another set or order"),
        ({"seed": 1}, "the place in the data stays at batch 2: in another set or order"),
        ({"steps": 6}, "the learning rate goes on at step 2 of the new schedule: 0.0333 -> 0.0667"),
        ({"optim": {"lr": 0.2}}, "the learning rate goes on at step 2 of the new schedule: 0.0333 -> 0.0667"),
        ({"init_from": "elsewhere"}, "config.init_from is of no effect: the run has weights of its own"),
        ({"tags": ("c",)}, None),
    ],
)
def test_what_an_accepted_change_means_is_said_in_a_line(run, changes, said, capsys):
    linear = {"optim": {"lr": 0.1, "warmup": 0, "schedule": "linear"}, "seed": 0, "batch_size": 4, "init_from": ""}
    runs.write_config(run, make_config(**linear))
    (run / "checkpoints" / "2").mkdir(parents=True)
    config = make_config(**linear)
    config.update(changes)
    continuing.check_config_change(run, config, accept=True)
    change, *lines = capsys.readouterr().err.splitlines()
    assert change.startswith("warning: accepted config change: ")
    assert [line.removeprefix("warning: ")[: len(said or "")] for line in lines] == ([said] if said else [])


def test_a_config_with_more_or_fewer_fields_is_another_config(run):
    newer = make_config()
    newer.update({"optim": {"clip": 1.0}})
    assert "optim.clip: absent -> 1.0" in refusal(continuing.check_config_change, run, newer)
    runs.write_config(run, newer)
    assert "optim.clip: 1.0 -> absent" in refusal(continuing.check_config_change, run, make_config())


def test_where_nothing_was_trained_the_new_config_wins(tmp_path):
    """A run that failed before its first step has left a config and has nothing to protect."""
    runs.write_config(tmp_path, make_config())
    (tmp_path / "checkpoints").mkdir()
    assert not continuing.check_config_change(tmp_path, make_config(steps=9))


@pytest.mark.parametrize("left", [runs.WEIGHTS, "checkpoints"])
def test_a_lost_config_is_not_taken_for_a_new_run(run, left, tmp_path):
    continuing.check_config_change(tmp_path, make_config())
    (run / runs.CONFIG).unlink()
    if left == "checkpoints":
        (run / runs.WEIGHTS).unlink()
        (run / left / "3").mkdir(parents=True)
    assert f"{run / runs.CONFIG} is missing" in refusal(continuing.check_config_change, run, make_config())


def test_differences_are_those_fields_that_differ():
    old = {"a": 1, "b": {"c": [1, 2], "d": 1.0}, "gone": None}
    assert continuing.differences(old, old) == []
    new = {"a": 1, "b": {"c": [1, 3], "d": 1.0, "e": ""}}
    assert continuing.differences(old, new) == ["b.c: [1, 2] -> [1, 3]", "b.e: absent -> ", "gone: None -> absent"]


def test_a_run_is_finished_at_its_last_step_once_it_is_scored(run):
    assert not continuing.is_finished(run, make_config())
    runs.write_scores(run, {"step": 2})
    assert not continuing.is_finished(run, make_config())
    runs.write_scores(run, {"step": 3})
    assert continuing.is_finished(run, make_config())
    runs.write_weights(run, PARAMS, VARIABLES, 2)
    assert not continuing.is_finished(run, make_config())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", "/proc/run"):
        message = refusal(runs.make_folder, folder)
        assert str(folder) in message
        assert "--workdir" in message


def test_scores_are_json(run):
    runs.write_scores(run, {"step": 3, "nats": 1.5})
    assert files.read_json(run / runs.SCORES) == {"step": 3, "nats": 1.5}


def test_weights_without_a_checkpoint_are_no_new_run(run, tmp_path):
    continuing.check_new(tmp_path)
    message = refusal(continuing.check_new, run)
    assert str(run / runs.WEIGHTS) in message
    assert "restore" in message


def test_weights_that_are_ahead_of_their_checkpoint_are_spoken_of(run, capsys):
    continuing.warn_of_newer_weights(run, 3)
    assert capsys.readouterr().err == ""
    continuing.warn_of_newer_weights(run, 2)
    assert "weights are of step 3, the newest good checkpoint is of step 2" in capsys.readouterr().err
    (run / runs.WEIGHTS).unlink()
    continuing.warn_of_newer_weights(run, 2)


def test_a_finished_run_of_another_config_can_be_accepted(run, capsys):
    continuing.check_same(run, make_config(steps=9), accept=True)
    assert "is used as it is: steps: 3 -> 9" in capsys.readouterr().err


def test_another_batch_size_says_what_becomes_of_the_place_in_the_data(run, capsys):
    for changes, said in (({"batch_size": 4}, True), ({"steps": 9}, False)):
        continuing.check_config_change(run, make_config(**changes), accept=True)
        assert ("the place in the data is counted in batches" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    "names",
    [["params"], ["params/a", "params/a/b"], ["other/a"], ["params/" + "a/" * 100], ["params/a", "variables"]],
)
def test_weights_whose_names_are_no_tree_are_refused(tmp_path, names):
    """Their digest fits, as a stranger's can: one array hid another, or a KeyError came of it."""
    tensors = {name: np.ones(2, np.float32) for name in names}
    note = json.dumps({"step": 3, "sha256": runs.digest_of(tensors, "step 3")})
    (tmp_path / runs.WEIGHTS).write_bytes(safetensors.numpy.save(tensors, {"t2i": note}))
    assert "its names or its step are none of a run's" in refusal(runs.read_weights, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": 3},
        {"data": []},
        {"steps": "3"},
        {"sampling": 1},
        {"parents": 3},
        {"parents": {"a": {}}},
        {"parents": {"a": {"config": 3, "run": None}}},
        {"parents": {"../a": {"config": {}, "run": ""}}},
        {"a.b": 1},
    ],
)
def test_a_config_of_other_kinds_is_refused(run, changes):
    files.write_json(run / runs.CONFIG, {**json.loads(make_config().to_json()), **changes})
    assert "train.py" in refusal(runs.read_config, run)
