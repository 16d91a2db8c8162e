"""Compiled programs on the disk: the commands keep them, and nothing but the time depends on them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import damage
import jax
import pytest
from jax._src import compilation_cache

import t2i_jax
from t2i_jax import runs
from t2i_jax.cli import compiled

REPO = Path(__file__).parents[1]
PROGRAM = "import jax, jax.numpy as jnp; print(float(jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((30, 30)))))"
KEPT = f"from t2i_jax.cli import compiled; compiled.keep(); {PROGRAM}"
# What a kill while jax writes leaves: half of an entry.
KILLED = """
import os, signal
from t2i_jax.cli import compiled
compiled.keep()
from jax._src import path
concrete = type(path.Path("."))
write = concrete.write_bytes

def die(self, data):
    write(self, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

concrete.write_bytes = die
"""


@pytest.fixture
def start(tmp_path):
    """`start(*arguments)` of Python, in a process whose user has no compiled programs yet and set nothing."""
    own = ("JAX_", "TF_CPP_")  # jax sets the latter where it is imported
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(REPO)}

    def call(*arguments, **variables):
        command = [sys.executable, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=REPO, env=environment | variables, **pipes)

    return call


def said(process):
    """What a process that ended well said on stdout and stderr."""
    out, error = process.communicate(timeout=500)
    assert process.returncode == 0, error
    return out.strip(), error


def entries(tmp_path):
    """Sizes of the programs that are kept, by name."""
    return {path.name: path.stat().st_size for path in (tmp_path / "cache").rglob("*-cache")}


@pytest.mark.slow
def test_a_second_training_compiles_nothing_and_gives_the_same_bits(start, tmp_path, data_dir):
    weights, programs = [], []
    for name in ("cold", "warm"):
        folder = tmp_path / name
        options = ["--config=patch_vqvae:smoke", f"--workdir={folder}", f"--config.data.data_dir={data_dir}"]
        _, error = said(start("train.py", *options))
        assert "arning" not in error
        assert "cpu_aot_loader" not in error
        weights.append((folder / runs.WEIGHTS).read_bytes())
        programs.append(entries(tmp_path))
    assert any(name.startswith("jit_train_step") for name in programs[0])
    assert programs[1] == programs[0]
    assert weights[1] == weights[0]


@pytest.mark.slow
def test_a_kill_while_a_program_is_written_is_mended_by_the_next_start(start, tmp_path):
    whole = said(start("-c", KEPT))
    assert whole[1] == ""
    sizes = entries(tmp_path)
    assert sizes
    for path in (tmp_path / "cache").rglob("*-*"):
        path.unlink()
    killed = start("-c", KILLED + PROGRAM)
    killed.communicate(timeout=100)
    assert killed.returncode < 0
    ((name, size),) = entries(tmp_path).items()
    assert size < sizes[name]
    assert said(start("-c", KEPT)) == whole
    assert entries(tmp_path).keys() == sizes.keys()
    assert said(start("-c", KEPT)) == whole


def test_a_program_with_a_flipped_bit_is_named_and_compiled_once(start, tmp_path):
    """jax alone would compile it at every start, and warn of it in two lines."""
    whole = said(start("-c", KEPT))
    sizes = entries(tmp_path)
    paths = sorted((tmp_path / "cache").rglob("*-cache"))
    for path in paths:
        damage.flip(path)
    out, error = said(start("-c", KEPT))
    assert out == whole[0]
    named = [f"warning: {path} is corrupt; that program is compiled again" for path in paths]
    assert sorted(error.splitlines()) == named
    assert entries(tmp_path) == sizes
    assert said(start("-c", KEPT)) == whole


def test_two_that_start_at_once(start, tmp_path):
    both = [start("-c", KEPT) for _ in range(2)]
    assert [said(process) for process in both] == [("900.0", "")] * 2
    assert entries(tmp_path)


@pytest.mark.slow
def test_what_xla_says_of_a_cpus_features_is_not_shown(start, tmp_path):
    """On some CPUs it is said, wrongly, of their own programs; here a program is made to name what no CPU has."""
    whole = said(start("-c", KEPT))
    for path in (tmp_path / "cache").rglob("*-cache"):
        entry = compilation_cache.decompress_executable(path.read_bytes())
        if b"+64bit" not in entry:
            pytest.skip("this CPU's programs name other features")
        path.write_bytes(compilation_cache.compress_executable(entry.replace(b"+64bit", b"+65bit")))
    assert "+65bit" in said(start("-c", KEPT, TF_CPP_MIN_LOG_LEVEL="0"))[1]
    assert said(start("-c", KEPT)) == whole


@pytest.mark.parametrize("value", ["", "mine"])
def test_a_folder_that_the_user_names_is_left_to_jax(start, tmp_path, value):
    folder = value and str(tmp_path / value)
    limit = "import jax; print(jax.config.jax_compilation_cache_max_size)"
    out = said(start("-c", f"{KEPT}; {limit}", JAX_COMPILATION_CACHE_DIR=folder))
    assert out == ("900.0\n-1", "")
    assert not (tmp_path / "cache").exists()


def test_importing_the_package_keeps_nothing(start, tmp_path):
    ask = "import t2i_jax.cli, t2i_jax.pipelines, jax; print(jax.config.jax_compilation_cache_dir)"
    assert said(start("-c", ask)) == ("None", "")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_one_warning(start, tmp_path):
    (tmp_path / "file").write_text("")
    out, error = said(start("-c", KEPT, XDG_CACHE_HOME=str(tmp_path / "file")))
    assert out == "900.0"
    assert error.startswith("warning: compiled programs are not kept: ")
    assert "set JAX_COMPILATION_CACHE_DIR to another folder" in error
    assert error.count("\n") == 1


def test_a_full_disk_is_one_warning(start, tmp_path, disk):
    """A file of its name finds room on it, and no program."""
    (disk("size=64k") / "ballast").write_bytes(bytes(shutil.disk_usage(tmp_path / "disk").free - 4 * 4096))
    out, error = said(start("-c", KEPT, XDG_CACHE_HOME=str(tmp_path / "disk")))
    assert out == "900.0"
    assert error.startswith("warning: compiled programs are not kept: [Errno 28] No space left on device")
    assert error.count("\n") == 1


def test_without_xdg_it_is_the_users_cache(monkeypatch, tmp_path):
    for name in (compiled.FOLDER, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("JAX_COMPILATION_CACHE_MAX_SIZE", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "of another")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    compiled.keep()
    monkeypatch.setenv(compiled.FOLDER, os.environ[compiled.FOLDER])  # so that it is undone
    assert Path(os.environ[compiled.FOLDER]).parent == tmp_path / ".cache" / "t2i_jax"
    assert os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] == str(compiled.LIMIT)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"  # what the user asked for


def test_to_open_a_run_compiles_nothing(smoke_run, caplog):
    jax.clear_caches()  # of what other tests opened
    with jax.log_compiles():
        t2i_jax.load(smoke_run.translator)
        assert "Finished XLA compilation" not in caplog.text
        jax.jit(lambda x: x + 1)(1.0)
        assert "Finished XLA compilation" in caplog.text
