"""The notebook's short form, run as a stranger would: its own kernel, in a folder that holds no runs."""

import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from t2i_jax.config import load_config

REPO = Path(__file__).parents[1]


@pytest.mark.long
def test_quickstart_notebook_trains_and_draws(tmp_path, monkeypatch):
    shutil.copy(REPO / "train.py", tmp_path)
    shutil.copytree(REPO / "configs", tmp_path / "configs")
    monkeypatch.setenv("T2I_VARIANT", "smoke")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")]))
    # A kernel of this interpreter, whatever kernels the machine knows by the name python3.
    kernels = tmp_path / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    argv = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernels / "kernel.json").write_text(f'{{"argv": {argv}, "display_name": "t", "language": "python"}}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    notebook = nbformat.read(REPO / "colab" / "quickstart.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()

    assert (tmp_path / "runs" / "translator-smoke" / "config.json").is_file()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs), outputs


def test_its_last_cell_draws_from_what_its_command_trains(smoke_run, tmp_path, monkeypatch):
    notebook = nbformat.read(REPO / "colab" / "quickstart.ipynb", as_version=4)
    _, train, draw = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert train.replace("{variant}", "smoke").split()[1:] == ["train.py", smoke_run.argv[0]]
    run = tmp_path / "runs" / load_config("translator:smoke").name  # where the command puts it
    run.parent.mkdir()
    run.symlink_to(smoke_run.translator)
    monkeypatch.chdir(tmp_path)
    names = {"variant": "smoke"}
    exec(draw, names)
    assert names["pipe"].step == 2


def test_notebook_is_stored_without_outputs_and_without_logic():
    notebook = nbformat.read(REPO / "colab" / "quickstart.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)
    assert not any(
        line.lstrip().startswith(("def ", "class ", "for ", "while "))
        for c in code
        for line in c.source.splitlines()
    )
