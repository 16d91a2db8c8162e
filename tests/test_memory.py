"""Freed memory stays with the process: page faults of strings that come and go."""

import os
import subprocess
import sys

import pytest

PAGES = 32 * 2**20 // 4096  # of one string
SCRIPT = """
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
    own = {name: value for name, value in os.environ.items() if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}

    def faults(*argument, **env):
        command = [sys.executable, "-c", SCRIPT, *argument]
        return int(subprocess.run(command, env=own | env, capture_output=True, text=True, check=True).stdout)

    assert faults("leave") > 9 * PAGES
    assert faults("keep") < 2 * PAGES
    assert faults("keep", MALLOC_ARENA_MAX="8") > 9 * PAGES  # chosen by whoever started it
