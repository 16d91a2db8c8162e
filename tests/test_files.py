"""Atomic writes, checksums, and locks."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from t2i_jax import files
from t2i_jax.errors import UserError, one_line, shown

REPO = Path(__file__).parents[1]
HOLD = """
import sys, time
from t2i_jax import files
with files.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """A process that holds the lock of `tmp_path`."""
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("failing", ["open", "fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failing):
    path = tmp_path / "file.json"
    files.write_atomically(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, failing, fail)
    with pytest.raises(OSError, match=r"No space left on device: .*file\.json'$") as error:
        files.write_atomically(path, b"new")
    monkeypatch.undo()
    assert error.value.errno == 28
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_write_left_is_overwritten(tmp_path):
    (tmp_path / "file.partial").write_bytes(b"a longer thing than the new one")
    files.write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_json_comes_back_as_it_went(tmp_path):
    content = {"a": [1, 2.5, None, True], "b": {"c": "é – 七", "nan": float("inf")}, "": "", "0": 1e-320}
    files.write_json(tmp_path / "file.json", content)
    assert files.read_json(tmp_path / "file.json") == content
    assert list(json.loads((tmp_path / "file.json").read_text())) == [*content, "sha256"]


@pytest.mark.parametrize("bit", [0, 1, 5, 7])
def test_every_flipped_byte_is_noticed_or_changes_nothing(tmp_path, bit):
    content, path = {"steps": 3, "lr": 1e-3, "name": "a b", "list": [True, None]}, tmp_path / "file.json"
    files.write_json(path, content)
    whole, noticed = path.read_bytes(), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        try:
            read = files.read_json(path)
        except files.CorruptError as error:
            said = str(error)
            noticed += said.startswith(f"{path} is corrupt") and "\n" not in said
        else:
            assert read == content
    assert noticed > 0.9 * len(whole)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"3", b"null", b"\xff", b"[" * 100_000, b'{"sha256": 1}']
)
def test_what_is_no_json_with_a_checksum_is_corrupt(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(files.CorruptError, match=r"file\.json is corrupt"):
        files.read_json(path)
    path.unlink()
    with pytest.raises(files.CorruptError, match=r"file\.json is missing$"):
        files.read_json(path)


def test_every_cut_is_noticed(tmp_path):
    path = tmp_path / "file.json"
    files.write_json(path, {"steps": 3})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(files.CorruptError):
            files.read_json(path)


def test_a_manifest_knows_all_files_of_its_folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three"):
        (tmp_path / name).write_text(name)
    files.write_manifest(tmp_path, step=4)
    manifest = files.verify_manifest(tmp_path)
    assert manifest["step"] == 4
    assert sorted(manifest["files"]) == ["a/b/three", "a/two", "one"]
    (tmp_path / "a" / "two").write_text("tw0")
    with pytest.raises(files.CorruptError, match=r"a/two is corrupt"):
        files.verify_manifest(tmp_path)
    (tmp_path / "a" / "two").unlink()
    with pytest.raises(files.CorruptError, match=r"a/two is missing$"):
        files.verify_manifest(tmp_path)


def test_a_lock_that_is_held_names_its_owner(tmp_path, owner):
    with pytest.raises(UserError) as error, files.lock(tmp_path):
        pass
    assert f"{tmp_path} is in use by another training (process {owner.pid} on " in str(error.value)
    assert "\n" not in str(error.value)
    (tmp_path / "lock.owner").write_text("")  # as a full disk leaves it
    with pytest.raises(UserError, match=r"in use by another training \(process unknown\)"), files.lock(tmp_path):
        pass


def test_a_dead_owner_holds_no_lock(tmp_path, owner):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with files.lock(tmp_path):
        assert (tmp_path / "lock.owner").read_text().startswith(f"{os.getpid()} on ")


def test_a_lock_can_be_waited_for(tmp_path, owner):
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    wait = HOLD.replace("sys.argv[1]", "sys.argv[1], wait=True").replace("time.sleep(60)", "")
    with subprocess.Popen(
        [sys.executable, "-c", wait, tmp_path], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as second:
        line = f"waiting for {tmp_path}, in use by process {owner.pid} on {platform.node()}\n"
        assert second.stderr.readline() == line.encode()
        assert second.poll() is None
        owner.kill()
        assert second.communicate(timeout=30)[0] == b"held\n"
        assert second.returncode == 0


def test_a_lock_is_let_go_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), files.lock(tmp_path):
        1 / 0  # noqa: B018
    with files.lock(tmp_path):
        pass


def test_a_manifest_that_lists_no_files_is_corrupt(tmp_path):
    for content in ({}, {"files": ["a"]}):
        files.write_json(tmp_path / files.MANIFEST, content)
        with pytest.raises(files.CorruptError, match="lists no files"):
            files.verify_manifest(tmp_path)


def test_a_manifest_that_lists_a_name_of_no_file_is_corrupt(tmp_path):
    """Found by fuzzing: the system refuses to look for a name so long."""
    files.write_json(tmp_path / files.MANIFEST, {"files": {"a" * 300: ""}})
    with pytest.raises(files.CorruptError, match="is missing"):
        files.verify_manifest(tmp_path)


def test_a_file_is_read_once_a_process_while_it_stays_the_same(tmp_path, monkeypatch):
    (tmp_path / "records").write_text("some")
    files.write_manifest(tmp_path)
    os.utime(tmp_path / "records", (1e9, 1e9))
    read, sha256_of = [], files.sha256_of

    def counted(path):
        read.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(files, "sha256_of", counted)
    for _ in range(3):
        files.verify_manifest(tmp_path, once=True)
    assert read == ["records"]
    files.verify_manifest(tmp_path)
    assert read == ["records"] * 2
    (tmp_path / "records").write_text("same")
    with pytest.raises(files.CorruptError, match=r"records is corrupt"):
        files.verify_manifest(tmp_path, once=True)


def test_two_changes_under_one_time_stamp_are_noticed(tmp_path):
    """A clock ticks every few milliseconds: what was written just now is read again."""
    (tmp_path / "records").write_text("some")
    stamp = (tmp_path / "records").stat().st_mtime_ns
    files.write_manifest(tmp_path)
    files.verify_manifest(tmp_path, once=True)
    (tmp_path / "records").write_text("same")
    os.utime(tmp_path / "records", ns=(stamp, stamp))
    with pytest.raises(files.CorruptError, match=r"records is corrupt"):
        files.verify_manifest(tmp_path, once=True)


@pytest.mark.slow
def test_the_package_needs_no_fcntl():
    """Windows has none."""
    modules = [
        ".".join(path.relative_to(REPO).with_suffix("").parts)
        for path in (REPO / "t2i_jax").rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    code = f"import sys; sys.modules['fcntl'] = None\nfor name in {modules}: __import__(name)"
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_an_exception_says_keeps_both_ends_in_one_line():
    assert one_line(OSError("no\nroom")) == "no room"
    assert one_line(KeyError()) == "KeyError"
    line = one_line(RuntimeError(f"writing {'path/' * 100}: no space left"))
    assert len(line) == 300
    assert line.startswith("writing path/")
    assert line.endswith("path/: no space left")
    said = one_line(ValueError("a\x1b[2J\ud800 é"))
    assert said == "a\\x1b[2J\\ud800 é"  # a stranger's name moves no cursor
    assert len(shown(ValueError("a" * 10**6))) == 4000


def test_json_that_is_too_deep_to_be_summed_is_corrupt(tmp_path):
    """Of some depths json reads what it cannot write."""
    path = tmp_path / "file.json"
    for depth in range(sys.getrecursionlimit() - 100, sys.getrecursionlimit()):
        path.write_text('{"sha256": 1, "a": ' + "[" * depth + "]" * depth + "}")
        with pytest.raises(files.CorruptError, match=r"file\.json is corrupt"):
            files.read_json(path)
