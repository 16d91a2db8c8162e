"""What other libraries raise and people can mend: one line, exit code 2."""

import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest
from processes import REPO

import t2i_jax
from t2i_jax import cli
from t2i_jax.loop.stop import Stop


@pytest.fixture
def failing(monkeypatch, tmp_path, capsys):
    """`t2i sample` of a run whose opening fails in a given way: its exit code and what it says."""

    def call(fail):
        monkeypatch.setattr(t2i_jax, "load", lambda run: fail())
        code = cli.main(["sample", "--run", str(tmp_path), "--prompt", "a", "--out", str(tmp_path / "a.png")])
        return code, capsys.readouterr().err

    return call


def raise_(error):
    def fail():
        raise error

    return fail


def test_out_of_memory(failing):
    for fail in (lambda: jnp.zeros(2**45).block_until_ready(), raise_(MemoryError())):
        code, said = failing(fail)
        assert code == 2
        assert said.startswith("t2i: out of memory (")
        assert said.endswith("); draw fewer pictures at a time, by -n or --candidates\n")
        assert said.count("\n") == 1


def test_threads_that_the_system_does_not_give(failing):
    code, said = failing(raise_(RuntimeError("can't start new thread")))
    assert (code, said.count("\n")) == (2, 1)
    assert "ulimit -u" in said


def test_faults_of_this_package_stay_visible(failing):
    for error in (RuntimeError("a"), KeyError("a"), ValueError("known backends")):
        with pytest.raises(type(error)):
            failing(raise_(error))


def test_a_platform_that_is_not_there(tmp_path):
    command = ["doctor", "--config=vqvae:smoke", "--dry-run"]
    program = "import sys; from t2i_jax import cli; sys.exit(cli.main(sys.argv[1:]))"
    environment = os.environ | {"JAX_PLATFORMS": "foo", "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", program, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "jax finds no such device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_thread_trains_without_signals():
    entered = []

    def enter():
        with Stop() as stop:
            entered.append(stop.requested)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [0]
    assert jax.devices()
