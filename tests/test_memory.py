"""Huge pages: a program starts anew with them where they are to be had on request, and nowhere else."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from t2i_jax import cli
from t2i_jax.cli import memory

SCRIPT = """
import os, pathlib, sys
from t2i_jax.cli import memory

memory.KERNEL = pathlib.Path(sys.argv[1])
os.confstr = lambda name: sys.argv[2]
print("started", flush=True)
memory.use_huge_pages()
print(os.getpid(), os.environ.get(memory.TUNABLES), *sys.argv[3:])
"""
WAITS, GIVES, NEVER = "always [madvise] never\n", "[always] madvise never\n", "always madvise [never]\n"


@pytest.fixture
def start(tmp_path):
    """`start(what the kernel says, libc, **environment)`: how often it started, in one process, and the setting."""

    def call(kernel=WAITS, libc="glibc 2.36", **environment):
        said, program = tmp_path / "enabled", tmp_path / "program.py"
        said.unlink(missing_ok=True)
        if kernel:
            said.write_text(kernel)
        own = {name: value for name, value in os.environ.items() if name not in (memory.TUNABLES, memory.ASKED)}
        own["PYTHONPATH"] = str(Path(__file__).parents[1])
        program.write_text(SCRIPT)
        command = [sys.executable, str(program), str(said), libc, "a word", "two  blanks"]
        process = subprocess.Popen(command, env=own | environment, stdout=subprocess.PIPE, text=True)
        *starts, last = process.communicate()[0].splitlines()
        pid, setting, words = last.split(" ", 2)
        assert (process.returncode, int(pid), words) == (0, process.pid, "a word two  blanks")
        assert set(starts) == {"started"}
        return len(starts), setting

    return call


def test_it_starts_once_more_as_the_same_process_with_the_same_words(start):
    assert start() == (2, memory.HUGE)


@pytest.mark.parametrize("kernel", [GIVES, NEVER, ""], ids=["given anyway", "never given", "not known"])
def test_not_where_the_kernel_does_not_wait_for_it(start, kernel):
    assert start(kernel) == (1, "None")


@pytest.mark.parametrize("libc", ["glibc 2.34", "musl 1.2", "", "glibc x"])
def test_not_where_malloc_knows_no_such_setting(start, libc):
    assert start(libc=libc) == (1, "None")


def test_not_where_somebody_has_chosen(start):
    assert start(GLIBC_TUNABLES="glibc.malloc.arena_max=1") == (1, "glibc.malloc.arena_max=1")


def test_not_twice_where_glibc_takes_the_setting_away(start):
    assert start(**{memory.ASKED: "1"}) == (1, "None")


def test_not_in_a_program_that_is_more_than_this_one(monkeypatch):
    """A notebook that runs train.py, a script on stdin, a debugger."""
    monkeypatch.setattr(sys, "argv", ["train.py", "--config=x"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "--config=x"])
    traced = sys.gettrace()
    sys.settrace(None)
    assert memory._is_all_there_is()
    sys.settrace(lambda *event: None)
    assert not memory._is_all_there_is()
    sys.settrace(traced)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "ipykernel", "-f", "connection.json"])
    for words in (["train.py", "--config=x"], ["train.py"]):
        monkeypatch.setattr(sys, "argv", words)
        assert not memory._is_all_there_is()
    monkeypatch.setattr(sys, "argv", ["-"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-"])
    assert not memory._is_all_there_is()


PAGES = 32 * 2**20 // 4096  # of one string
FREED = """
import resource, sys, threading
from t2i_jax.cli import memory

if sys.argv[1] == "keep":
    memory.keep()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in 10 * [2**25]:
        b"x" * size
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=faults)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_a_string_takes_the_memory_that_the_last_one_left():
    own = {name: value for name, value in os.environ.items() if name not in ("MALLOC_ARENA_MAX", memory.TUNABLES)}

    def faults(*argument, **env):
        command = [sys.executable, "-c", FREED, *argument]
        return int(subprocess.run(command, env=own | env, capture_output=True, text=True, check=True).stdout)

    assert faults("leave") > 9 * PAGES
    assert faults("keep") < 2 * PAGES
    assert faults("keep", MALLOC_ARENA_MAX="8") > 9 * PAGES  # chosen by whoever started it


@pytest.mark.skipif(not memory._libc_can(), reason="glibc's malloc alone")
@pytest.mark.skipif(not memory._kernel_waits(), reason="the kernel has no huge pages for those who ask")
def test_arrays_then_lie_in_huge_pages():
    code = "x = b'x' * 2**27; print(open('/proc/self/smaps_rollup').read().split('AnonHugePages:')[1].split()[0])"
    own = {name: value for name, value in os.environ.items() if name != memory.TUNABLES}

    def kilobytes(**environment):
        command = [sys.executable, "-c", code]
        return int(subprocess.run(command, env=own | environment, capture_output=True, text=True).stdout)

    assert kilobytes() < 2**14
    assert kilobytes(**{memory.TUNABLES: memory.HUGE}) > 2**16


def test_a_program_calls_it_and_a_caller_of_main_is_left_alone(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(memory, "use_huge_pages", lambda: calls.append(sys.argv[0]))
    monkeypatch.setattr(sys, "argv", ["t2i", "runs", "no/such/folder"])
    assert cli.main() == 2
    assert calls == []
    assert cli.program() == 2
    program = str(Path(__file__).parents[1] / "train.py")
    monkeypatch.setattr(sys, "argv", [program, "--config=no_such_config"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(program, run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("train.py: there is no config")
    assert calls == ["t2i", program]
