"""The package as a wheel: what lies in it, and that it trains from a folder that holds nothing."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "t2i_jax", "configs")


@pytest.fixture(scope="session")
def wheel(once):
    def build(folder):
        for part in PARTS:  # a copy, so that building leaves nothing behind
            copy = shutil.copytree if (REPO / part).is_dir() else shutil.copy
            (folder / "source").mkdir(parents=True, exist_ok=True)
            copy(REPO / part, folder / "source" / part)
        program = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
        command = [sys.executable, "-c", program, folder]
        done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return next(once("wheel", build).glob("*.whl"))


def test_it_holds_every_file_of_the_package_and_every_config(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("t2i_jax/")}
    own = {path.relative_to(REPO) for path in (REPO / "t2i_jax").rglob("*.py")}
    configs = {Path("t2i_jax") / path.relative_to(REPO) for path in (REPO / "configs").glob("*.py")}
    assert names == {path.as_posix() for path in own | configs}


def test_it_is_small(wheel):
    assert wheel.stat().st_size < 1_000_000


@pytest.mark.long
def test_it_trains_from_an_empty_folder(wheel, tmp_path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-deps"]
    subprocess.run([*pip, "--target", installed, wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def t2i(*argv):
        command = [sys.executable, installed / "bin" / "t2i", *argv]
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)

    done = t2i("train", "--config=translator:smoke", "--workdir=run")
    assert done.returncode == 0, done.stderr
    assert (empty / "run" / "model.safetensors").is_file()
    drawn = t2i("sample", "--run", "run", "--prompt", "a red seven", "-n", "1", "--out", "grid.png")
    assert drawn.returncode == 0, drawn.stderr
    assert (empty / "grid.png").is_file()
    shutil.copy(REPO / "configs" / "vae.py", empty / "mine.py")  # a config of one's own, by its path
    done = t2i("train", "--config=mine.py:smoke", "--workdir=own", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    listed = t2i("runs", ".", "--json")
    assert {"run", "own"} <= {entry["run"] for entry in json.loads(listed.stdout)}
    pytest.importorskip("matplotlib")
    drawn = t2i("plot", "--run", "run", "--run", "own")
    assert (drawn.returncode, drawn.stdout) == (0, "curves.png\n"), drawn.stderr
    where = subprocess.run(
        [sys.executable, "-c", "import t2i_jax; print(t2i_jax.__file__)"],
        cwd=empty, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(installed))
