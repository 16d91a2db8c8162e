"""In a notebook: an error is one line, a bar is the notebook's own."""

import sys
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell
from tqdm.auto import tqdm as notebook_bar

from t2i_jax import progress
from t2i_jax.errors import UserError
from t2i_jax.files import CorruptError


@pytest.mark.parametrize("kind", [UserError, CorruptError])
def test_an_error_is_one_line(kind, capsys):
    shell = InteractiveShell()
    shell.user_ns["error"] = kind("run x\ndoes not exist; train one")
    shell.run_cell("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise error")
    said = capsys.readouterr()
    assert (said.out + said.err).splitlines() == [f"{kind.__name__}: run x does not exist; train one"]
    assert "Traceback" in shell_says(shell, "1 / 0", capsys)  # of what is no UserError nothing is hidden


def shell_says(shell, code, capsys):
    shell.run_cell(code)
    said = capsys.readouterr()
    return said.out + said.err


def test_a_notebook_gets_its_own_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    assert isinstance(progress.bar(total=1, hidden=True), notebook_bar)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # imported, not running
    assert not isinstance(progress.bar(total=1, hidden=True), notebook_bar)
