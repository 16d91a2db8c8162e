"""In a notebook: an error is one line, a bar is the notebook's own."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from tqdm.auto import tqdm as notebook_bar

from t2i_jax import progress

CELLS = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_cell("from t2i_jax.errors import UserError")
shell.run_cell("from t2i_jax.files import CorruptError")
for cell in ("raise UserError('run x\\\\ndoes not exist')", "raise CorruptError('y is corrupt')", "1 / 0"):
    shell.run_cell(f"try:\\n    [][0]\\nexcept IndexError:\\n    {cell}")
    print("---")
"""


def test_an_error_is_one_line(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CELLS], env=env, capture_output=True, text=True, timeout=60)
    one, other, not_ours, _ = done.stdout.split("---\n")
    assert one == "UserError: run x does not exist\n"
    assert other == "CorruptError: y is corrupt\n"
    assert "Traceback" in not_ours  # of what is a fault of ours, or of others, nothing is hidden


def test_a_notebook_gets_its_own_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    assert isinstance(progress.bar(total=1, hidden=True), notebook_bar)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # imported, not running
    assert not isinstance(progress.bar(total=1, hidden=True), notebook_bar)
