"""SIGKILL at any moment, then the same command: the run ends as if it had never been touched, bit for bit.

The short form kills twice. `pytest tests/test_faults.py --long` kills at every moment below and at random ones, and
ends with a table.
"""

import random
import re
import shutil
import signal
import subprocess
import time

import pytest
import worlds

pytestmark = pytest.mark.slow  # a run is trained for them

SHORT = ["old checkpoint half deleted", "checkpoint half written"]  # the tokenizer's, then the translator's
SAVING = [  # step 4 as it is saved, step 5
    "checkpoint half written",
    "checkpoint written, not sealed",
    "checkpoint sealed, not renamed",
    "checkpoint renamed, weights not written",
    "step 5",
]
LONG = {  # ... and step 6 as it is scored and saved
    "data and tokenizer": [
        "preparing data",
        "data prepared, not sealed",
        "data half sealed",
        "k-means",
        "step 1",
        *SAVING,
        "scores written, not renamed",
        "old checkpoint half deleted",
        "weights written, not renamed",
    ],
    "tokens and translator": [
        "encoding",
        "tokens written, not renamed",
        "encoding the second split",
        "text tokenizer written, not renamed",
        "copying the tokenizer",
        "translator's step 1",
        *SAVING,
        "old checkpoint half deleted",
        "translator's weights written, not renamed",
        "translator's scores written, not renamed",
    ],
}
RANDOM_KILLS = 4


def killed(world, moment):
    """Start the command and let it be killed at a moment, which must come."""
    code, said = worlds.run(world, ("kill", moment))
    assert code == -signal.SIGKILL, (moment, said[-3:])


def history(world, moments, other, record):
    for moment in moments:
        record(f"SIGKILL: {moment}", "tried")
        killed(world, moment)
    code, said = worlds.run(world)
    assert code == 0, said[-3:]
    worlds.assert_same_world(world, other)
    for moment in moments:
        record(f"SIGKILL: {moment}", "survived")


def test_a_run_that_is_killed_twice_ends_as_the_one_that_was_not(untouched, tmp_path, record_fault):
    history(tmp_path / "world", SHORT, untouched, record_fault)


@pytest.mark.long
@pytest.mark.parametrize("name", LONG)
def test_a_run_that_is_killed_at_every_moment_ends_as_the_one_that_was_not(name, untouched, tmp_path, record_fault):
    history(tmp_path / "world", LONG[name], untouched, record_fault)


@pytest.mark.long
def test_a_run_that_is_killed_at_random_ends_as_the_one_that_was_not(untouched, tmp_path, record_fault):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    world, draw, kills = tmp_path / "world", random.Random(seed), 0
    seconds = float((untouched / "seconds").read_text())
    for _ in range(RANDOM_KILLS):
        with worlds.start(world) as process:
            try:
                said = process.communicate(timeout=draw.uniform(0.1, 0.5) * seconds)[1]
                assert process.returncode == 0, said
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                record_fault("SIGKILL: at random", "tried")
    assert kills
    code, said = worlds.run(world)
    assert code == 0, said[-3:]
    worlds.assert_same_world(world, untouched)
    for _ in range(kills):
        record_fault("SIGKILL: at random", "survived")


def test_a_second_training_in_the_same_folder_is_refused_until_the_first_is_gone(
    interrupted, untouched, command, tmp_path, monkeypatch, record_fault
):
    world = shutil.copytree(interrupted, tmp_path / "world")
    record_fault("a second training in the folder", "tried")
    with worlds.start(world, ("stop", "step 5")) as process:
        try:
            until = time.monotonic() + 120
            while not (world / "stopped").exists():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.05)
            code, said = command(*worlds.TRANSLATOR, cwd=world)
        finally:
            process.kill()
    assert code == 2
    assert re.fullmatch(
        rf"train.py: translator is in use .*\(process {process.pid} on .*; wait for it, .*", said[-1]
    )
    assert len(said) == 1
    assert command(*worlds.TRANSLATOR, cwd=world)[0] == 0  # a dead owner holds no lock
    worlds.assert_same_run(world / "translator", untouched / "translator")
    record_fault("a second training in the folder", "refused")
