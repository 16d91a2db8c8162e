"""The notebooks of colab/: what they may hold, that their short form runs, and that their pages are of them."""

import ast
import base64
import re
import shlex
from pathlib import Path

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

from colab import render
from t2i_jax import cli
from t2i_jax.config import load_config

REPO = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (REPO / "colab").glob("*.ipynb"))
LOGIC = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.comprehension)
SHORT = {"variant": "smoke", "steps": "2", "pictures": "photos", "image_size": "32"}
every = pytest.mark.parametrize("name", NAMES)


def cells_of(name: str) -> list[str]:
    """Sources of the code cells."""
    notebook = nbformat.read(REPO / "colab" / f"{name}.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def nodes_of(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(TransformerManager().transform_cell(source))))


def trained_by(name: str) -> dict[str, list[str]]:
    """Run folders of the short form, and the command that trains each."""
    found = {}
    for line in "\n".join(cells_of(name)).replace("\\\n", "").splitlines():
        if line.startswith("!t2i "):
            command = shlex.split(re.sub(r"\{(\w+)\}", lambda field: SHORT[field[1]], line))[1:]
            args = cli.parse(command)
            if args.command == "train":
                found[f"runs/{load_config(args.config, args.overrides).name}"] = command
    return found


@every
def test_is_stored_without_outputs_and_holds_no_logic(name):
    notebook = nbformat.read(REPO / "colab" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    install, *others = map(nodes_of, cells_of(name))
    assert not [node for nodes in (install, *others) for node in nodes if isinstance(node, LOGIC)]
    assert not [node for nodes in others for node in nodes if isinstance(node, ast.If)]


@every
def test_installs_first_and_leaves_the_accelerator_to_commands_and_then_to_python(name):
    """A TPU belongs to one process, and most of a GPU's memory: what a kernel holds, a command cannot have."""
    install, *others = cells_of(name)
    assert re.search(r"^if importlib.util.find_spec\(.t2i_jax.\) is None:\n +%pip install ", install, re.MULTILINE)
    assert "JAX_PLATFORMS" not in "".join([install, *others])
    holds = [bool(re.search(r"^(from|import) (t2i_)?jax\b", source, re.MULTILINE)) for source in others]
    commands = [i for i, source in enumerate(others) if "!t2i " in source]
    assert commands[-1] < holds.index(True)


@every
def test_opens_what_its_commands_train(name):
    opened = re.findall(r"\"(runs/[\w{}-]+)\"", "\n".join(cells_of(name)))
    assert {path.format(**SHORT) for path in opened} == set(trained_by(name))


def test_quickstart_draws_from_what_its_command_trains(smoke_run, tmp_path, monkeypatch):
    (folder,) = trained_by("quickstart")
    (tmp_path / "runs").mkdir()
    (tmp_path / folder).symlink_to(smoke_run.translator)
    monkeypatch.chdir(tmp_path)
    names = {"variant": "smoke"}
    exec(cells_of("quickstart")[2], names)
    assert names["pipe"].step == 2


@pytest.mark.long
@every
def test_short_form_trains_and_draws(name, tmp_path):
    notebook = render.execute(
        REPO / "colab" / f"{name}.ipynb",
        tmp_path,
        timeout=300,
        T2I_VARIANT="smoke",
        T2I_STEPS="100" if name == "own_pictures" else "2",  # it has no smoke variant: not below the warm-up
        JAX_PLATFORMS="cpu",
    )
    for run in trained_by(name):
        assert (tmp_path / run / "scores.json").is_file(), [cell.get("outputs") for cell in notebook.cells]
    shows = [cell for cell in notebook.cells if re.search(r"^(labelled_grid|Image.open)\(.*\Z", cell.source, re.M)]
    assert shows
    for cell in shows:
        assert "image/png" in cell.outputs[-1].data


def test_a_page_has_bars_once_and_pictures_under_their_headings():
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    png = base64.b64encode(render.encoded(Image.fromarray(noise))).decode()
    figure = nbformat.v4.new_output("display_data", {"image/png": png})
    bar = "\x1b[31mbar:  10%\r\nbar:  10%\rbar:  90%\rbar: 100%\r\ndone\n"
    code = nbformat.v4.new_code_cell("# A comment", outputs=[nbformat.v4.new_output("stream", text=bar), figure])
    cells = [nbformat.v4.new_markdown_cell("# Title\n\nWords."), nbformat.v4.new_markdown_cell("## Digits"), code]
    page, pictures = render.to_markdown(nbformat.v4.new_notebook(cells=cells), "name", "Here, today.")
    assert page.startswith("# Title\n\n*Here, today.*\n")
    assert page.count("bar:") == 2
    assert "\x1b" not in page
    assert "![Digits](name_2_1.png)" in page
    assert list(pictures) == ["name_2_1.png"]
    assert 1000 < len(pictures["name_2_1.png"]) < render.LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_page_is_of_the_notebook_as_it_is(name):
    page = (render.PAGES / f"{name}.md").read_text()
    first, *others = nbformat.read(REPO / "colab" / f"{name}.ipynb", as_version=4).cells
    for source in [*first.source.split("\n\n"), *(cell.source for cell in others)]:
        assert source in page, f"`make notebooks` renders {name} anew"
    shown = set(re.findall(r"\]\((\S+\.png)\)", page))
    assert shown == {path.name for path in render.PAGES.glob(f"{name}_*.png")}


def test_pictures_of_the_pages_are_small():
    sizes = [path.stat().st_size for path in render.PAGES.iterdir()]
    assert max(sizes) < 300_000
    assert sum(sizes) < 1_500_000
