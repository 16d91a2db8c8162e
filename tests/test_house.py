"""Keeps ARCHITECTURE.md true: who may import whom, and how long a file may grow."""

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "t2i_jax"

# A file imports from lower floors and, where it lives in a folder, from its own folder.
FLOORS = {
    "errors": 0,
    "files": 0.5,
    "random": 0.5,
    "ranges": 0.6,
    "progress": 0.5,
    "pictures": 0.5,
    "hosts": 0.6,
    "runs": 0.7,
    "losses": 0.5,
    "lr_multipliers": 0.5,
    "nn": 1,
    "sampling": 1.2,
    "data": 1,
    "models": 1.5,
    "convert": 2,
    "pipelines": 2.2,
    "evals": 2.5,
    "encode": 2.7,
    "tasks": 3,
    "loop": 4,
    "config": 4.5,
    "": 5,  # t2i_jax/__init__.py, which hands out `load`
    "page": 5.5,
    "cli": 6,
}
NUMPY_ONLY = {"data", "errors", "files", "page", "cli"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
MAX_LINES = 300

FILES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((REPO / "configs").glob("*.py"))


def imports(source):
    """Every module that `source` imports, anywhere in it, as (line number, dotted name)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports from the top, t2i_jax..."
            for alias in node.names:
                # `from t2i_jax import losses` names a module, `from t2i_jax import load` does not.
                full = f"{node.module}.{alias.name}"
                path = REPO.joinpath(*full.split("."))
                is_module = path.with_suffix(".py").exists() or path.is_dir()
                yield node.lineno, full if is_module else node.module


def stop(dotted):
    """The part of the package that `t2i_jax.<part>....` belongs to; '' is the package itself."""
    return dotted.partition(".")[2].partition(".")[0]


def broken_rules(part, source):
    """What a file of `part` (a key of FLOORS) must not import but does."""
    found = []
    for line, name in imports(source):
        top = name.partition(".")[0]
        if top in JAX and part in NUMPY_ONLY:
            found.append(f"line {line}: {part} knows no jax, but imports {name}")
        if top in {"configs", "train", "tests"}:
            found.append(f"line {line}: the package imports {name}, which stands above it")
        if top == "t2i_jax":
            other = stop(name)
            if other not in FLOORS:
                found.append(f"line {line}: {name} has no floor; give it one in FLOORS")
            elif other != part and FLOORS[other] >= FLOORS[part]:
                found.append(f"line {line}: {part} (floor {FLOORS[part]}) imports {name} ({FLOORS[other]})")
            elif part == "loop" and other in {"models", "evals", "pipelines"}:
                found.append(f"line {line}: the loop imports {name}; it knows tasks, no models or scores")
    return found


def foreign_to_a_config(source):
    """What a config must not import but does."""
    return {name.partition(".")[0] for _, name in imports(source)} - {"ml_collections", "configs"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_imports_from_lower_floors_only(file):
    part = file.relative_to(PACKAGE).with_suffix("").parts[0]
    assert broken_rules("" if part == "__init__" else part, file.read_text()) == []


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_a_config_imports_ml_collections_and_its_siblings_only(file):
    assert foreign_to_a_config(file.read_text()) == set()


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("sampling", "from t2i_jax.models.gpt2 import GPT2"),
        ("sampling", "def late():\n    import t2i_jax.models.gpt2"),
        ("losses", "from t2i_jax import data"),
        ("nn", "from t2i_jax.models import vqvae"),
        ("pipelines", "from t2i_jax.tasks import tokens"),
        ("pipelines", "from t2i_jax.loop import sharding"),
        ("evals", "from t2i_jax import load"),
        ("tasks", "from t2i_jax.loop import setup"),
        ("loop", "from t2i_jax.models import vqvae"),
        ("pipelines", "import t2i_jax.cli"),
        ("data", "import jax.numpy as jnp"),
        ("data", "from flax import linen"),
        ("loop", "import train"),
        ("cli", "from t2i_jax.utils import everything"),
    ],
)
def test_the_rules_catch_what_they_forbid(part, source):
    assert len(broken_rules(part, source)) == 1


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("models", "from t2i_jax.models import parts\nfrom t2i_jax.errors import UserError\nimport jax"),
        ("tasks", "from t2i_jax import losses\nfrom t2i_jax.models.translator import shift_right"),
        ("", "def load():\n    from t2i_jax import tasks"),
        ("cli", "import t2i_jax\nfrom t2i_jax.evals.report import evaluate_run"),
        ("data", "import numpy as np\nfrom jaxtyping import UInt8\nfrom t2i_jax.data import scenes"),
    ],
)
def test_the_rules_allow_what_the_house_needs(part, source):
    assert broken_rules(part, source) == []


def test_no_file_is_too_long():
    own = [file for name in ("t2i_jax", "configs", "tests", "benchmarks") for file in (REPO / name).rglob("*.py")]
    lengths = {file: len(file.read_text().splitlines()) for file in [*own, *REPO.glob("*.py")]}
    long = {str(file.relative_to(REPO)): n for file, n in lengths.items() if n > MAX_LINES}
    assert not long, f"look for the second noun in {long}"


def test_no_file_but_its_own_names_a_task_or_a_model():
    """Those are found by their files' names, so that a new one needs no other file to change."""
    files = [path for folder in ("tasks", "models") for path in (PACKAGE / folder).glob("[!_]*.py")]
    kinds = {path.stem for path in files if re.search(r"^class (Task|Model)\(", path.read_text(), re.MULTILINE)}
    kinds -= {"clip", "vqgan"}  # words of the command line
    found = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and node.value in kinds:
                found.setdefault(node.value, set()).add(str(file.relative_to(PACKAGE)))
    others = {
        file
        for name, files in found.items()
        for file in files
        if Path(file).stem != name and not file.startswith("convert/")  # which write configs of runs
    }
    assert others == set()
