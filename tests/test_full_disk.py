"""A disk that is full or read-only: one line, the last good checkpoint stands, and room is all that is needed."""

import shutil

import pytest
import worlds


def refused(code, said):
    """The one line that it was refused with."""
    assert code == 2, said
    assert not any("Traceback" in line for line in said)
    lines = [line for line in said if line.startswith("train.py: ")]
    assert len(lines) == 1
    after = said[said.index(lines[0]) + 1 :]
    assert not "".join(after).replace("\x1b[A", "").strip()  # TFDS wipes its bars
    return lines[0]


@pytest.mark.long  # now and then TensorStore prints "Event loop is closed" with a traceback, on its own
def test_a_disk_that_fills_up_in_training_costs_nothing_but_the_steps_since(
    untouched, disk, command, read_only, record_fault
):
    world = disk("size=16m")
    shutil.copytree(untouched / "data", world / "data")
    record_fault("disk full in training", "tried")
    line = refused(*worlds.run(world, ("fill", "step 5"), argv=worlds.TOKENIZER))
    assert "No space left on device" in line
    assert "the same command continues" in line
    assert sorted(path.name for path in (world / "tokenizer" / "checkpoints").iterdir()) == ["2", "4"]
    before = read_only(world / "tokenizer" / "checkpoints")
    refused(*command(*worlds.TOKENIZER, cwd=world))  # still full
    assert read_only(world / "tokenizer" / "checkpoints") == before
    (world / "ballast").unlink()
    code, said = command(*worlds.TOKENIZER, cwd=world)
    assert code == 0, said
    assert "continuing from step 4" in said
    worlds.assert_same_run(world / "tokenizer", untouched / "tokenizer")
    record_fault("disk full in training", "survived")


@pytest.mark.long
@pytest.mark.parametrize(
    ("moment", "part"),
    [
        ("step 1", "what was saved before stands"),
        ("checkpoint begun", "; that of step 2 stands"),
        ("checkpoint renamed, weights not written", "the checkpoint of step 4 stands"),
    ],
)
def test_a_disk_that_fills_up_at_another_moment(moment, part, untouched, disk, command, record_fault):
    world = disk("size=16m")
    shutil.copytree(untouched / "data", world / "data")
    fault = f"disk full: {moment}"
    record_fault(fault, "tried")
    line = refused(*worlds.run(world, ("fill", moment), argv=worlds.TOKENIZER))
    assert "No space left on device" in line
    assert part in line
    (world / "ballast").unlink()
    code, said = command(*worlds.TOKENIZER, cwd=world)
    assert code == 0, said
    worlds.assert_same_run(world / "tokenizer", untouched / "tokenizer")
    record_fault(fault, "survived")


def test_a_full_disk_for_the_data(untouched, disk, command, record_fault):
    world = disk("size=1m")
    record_fault("disk full: preparing data", "tried")
    line = refused(*command(*worlds.TOKENIZER, cwd=world))
    assert "data set captioned_digits/tiny cannot be prepared in data" in line
    assert "No space left on device" in line
    assert not list((world / "data").rglob("*.array_record*"))  # it leaves room for others
    record_fault("disk full: preparing data", "refused")


@pytest.mark.slow
def test_a_full_disk_for_the_tokens(interrupted, untouched, disk, command, record_fault):
    world = disk("size=16m")
    shutil.copytree(interrupted, world, dirs_exist_ok=True)
    shutil.rmtree(world / "tokenizer" / "tokens")
    record_fault("disk full: encoding", "tried")
    for text, room in (("cannot be written", 0), ("", 1)):
        fill(world, room << 14)
        line = refused(*command(*worlds.TRANSLATOR, cwd=world))
        assert "No space left on device" in line
        assert text in line
        assert not list((world / "tokenizer").rglob("*.partial"))
        (world / "ballast").unlink()
    assert command(*worlds.TRANSLATOR, cwd=world)[0] == 0
    assert worlds.tokens_of(world) == worlds.tokens_of(untouched)
    worlds.assert_same_run(world / "translator", untouched / "translator")
    record_fault("disk full: encoding", "survived")


def fill(folder, room):
    """Leave so many bytes on a disk."""
    free = shutil.disk_usage(folder).free
    (folder / "ballast").write_bytes(bytes(free - room))


def test_a_read_only_disk_is_left_as_it_is(interrupted, disk, command, read_only, record_fault):
    world = disk("size=16m")
    shutil.copytree(interrupted, world, dirs_exist_ok=True)
    before = read_only(world)
    disk("size=16m,remount,ro")
    record_fault("read-only disk", "tried")
    line = refused(*command(*worlds.TRANSLATOR, cwd=world))
    assert "run folder translator cannot be written (Read-only file system); choose another --workdir" in line
    assert read_only(world) == before
    record_fault("read-only disk", "refused")
