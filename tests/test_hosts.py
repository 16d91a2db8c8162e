"""Two processes as two hosts: one deletes, both agree on what failed, and nobody waits for ever."""

import json

import numpy as np
import pytest
from processes import REPO, on_two_hosts
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from t2i_jax import runs


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each of the two hosts saw."""
    ends = on_two_hosts(REPO / "tests" / "two_hosts.py", tmp_path_factory.mktemp("run"))
    return [[json.loads(line) for line in out.splitlines() if line[0] == "{"] for out, _ in ends]


def rows_of(step):
    """Rows of the kernel, by host."""
    return (np.arange(16.0) + step).reshape(2, 8).tolist()


def test_each_host_gets_back_its_rows_and_its_position(told):
    for rank, seen in enumerate(told):
        assert seen[0] == {"step": 3, "rows": [rows_of(3)[rank]], "next": 2 * 3 + rank, "folders": ["2", "3"]}


@pytest.mark.parametrize(("number", "name"), [(1, "write"), (2, "check_equal")])
def test_a_save_that_fails_on_one_host_fails_on_both(told, number, name):
    for seen, reason in zip(told, ["host 1 of 2 failed; it says why", "No space left on device"], strict=True):
        assert seen[number]["failed"] == name
        assert reason in seen[number]["said"]
        assert "; that of step 3 stands; " in seen[number]["said"]
        assert set(seen[number]["folders"]) - {"4.partial"} == {
            "2",
            "3",
        }  # which the first host may just be deleting


def test_a_restore_that_fails_on_one_host_fails_on_both(told):
    first, second = (seen[3]["said"] for seen in told)
    assert first == "host 1 of 2 failed; it says why"
    assert "checkpoints/3 cannot be read just now" in second


def test_hosts_fall_back_together_and_the_first_one_deletes(told):
    for rank, seen in enumerate(told):
        assert seen[4] == {"step": 2, "rows": [rows_of(2)[rank]], "next": 2 * 2 + rank, "folders": ["2", "3"]}
        assert seen[5]["folders"] == ["2", "5"]
        assert seen[5]["total"] == sum(range(16))


def test_several_processes_that_nothing_tells_of(command, monkeypatch, tmp_path):
    for name in ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"JAX_{name}", raising=False)
    code, lines = command("--config=patch_vqvae:smoke", "--multihost", f"--workdir={tmp_path / 'run'}")
    assert code == 2
    (line,) = lines
    assert line.startswith("train.py: --multihost: ")
    assert line.endswith("; set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_two_processes_train_one_run(data_dir, tmp_path):
    """Losses and weights are written once; that each reads its half is `test_pipeline.py`'s."""
    options = f"--workdir={tmp_path / 'run'}", f"--config.data.data_dir={data_dir}", "--multihost"
    ends = on_two_hosts(REPO / "train.py", f"--config={REPO}/configs/patch_vqvae.py:smoke", *options)
    assert all("on 2 hosts" in err for _, err in ends)
    events = EventAccumulator(str(tmp_path / "run" / "logs")).Reload().Scalars("train/loss")
    assert [event.step for event in events] == [1, 2]
    assert events[1].value < events[0].value
    assert runs.read_weights(tmp_path / "run")[2] == 2
