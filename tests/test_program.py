"""`t2i` in a process of its own: what it imports before it is asked for anything, help and exit codes."""

import os
import subprocess
import sys

import pytest

HEAVY = {"jax", "jaxlib", "numpy", "PIL", "flax", "tqdm", "absl", "ml_collections"}
TRAINING = {"orbax", "grain", "tensorflow_datasets", "pyarrow", "sklearn", "scipy"}


def imported_by(program, *argv, **environment):
    """Top-level modules that a program has imported by its end; the last line of its output."""
    program = f"import sys\n{program}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-c", program, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_nothing_heavy():
    assert not HEAVY & imported_by("import t2i_jax")


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["sample", "--help"], ["doctor", "--help"]])
def test_help_imports_nothing_heavy(argv):
    program = "from contextlib import suppress\nfrom t2i_jax import cli\nwith suppress(SystemExit):\n    cli.main()"
    assert not HEAVY & imported_by(program, *argv)


def test_opening_a_run_imports_nothing_that_only_training_needs(smoke_run):
    loaded = imported_by("import t2i_jax\nt2i_jax.load(sys.argv[1])", smoke_run.translator)
    assert "jax" in loaded
    assert not TRAINING & loaded


def test_as_a_program_it_has_help_and_exit_codes():
    program = "import sys; from t2i_jax.cli import main; sys.exit(main())"

    def t2i(*argv):
        return subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True)

    shown = t2i("--help")
    assert shown.returncode == 0
    assert "train" in shown.stdout
    assert "sample" in shown.stdout
    assert "evaluate" in shown.stdout
    refused = t2i("sample", "--run", "no/such/run", "--prompt", "a red seven")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines() == [refused.stderr.strip()]
    assert "Traceback" not in refused.stderr
