"""`t2i` in a process of its own."""

import subprocess
import sys


def test_importing_the_command_line_imports_nothing_heavy():
    program = "import sys, t2i_jax.cli; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"jax", "jaxlib", "numpy", "PIL", "flax", "tqdm"} & set(done.stdout.split())


def test_as_a_program_it_has_help_and_exit_codes():
    program = "import sys; from t2i_jax.cli import main; sys.exit(main())"

    def t2i(*argv):
        return subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True)

    shown = t2i("--help")
    assert shown.returncode == 0
    assert "sample" in shown.stdout
    assert "evaluate" in shown.stdout
    refused = t2i("sample", "--run", "no/such/run", "--prompt", "a red seven")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines() == [refused.stderr.strip()]
    assert "Traceback" not in refused.stderr
