"""Importing the package changes nothing of the process: that is its owner's."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]

LOOK = """
import importlib, json, logging, os, pkgutil, signal, sys, warnings

def look():
    found = {"environment": dict(os.environ), "path": sys.path[:], "filters": [repr(f) for f in warnings.filters]}
    loggers = {"": logging.root, **logging.root.manager.loggerDict}
    found["loggers"] = {name: (each.level, len(each.handlers), len(each.filters), each.propagate)
                        for name, each in loggers.items() if isinstance(each, logging.Logger)}
    found["hooks"] = [repr(hook) for hook in (sys.excepthook, sys.displayhook, sys.unraisablehook)]
    found["signals"] = {s.name: repr(signal.getsignal(s)) for s in signal.valid_signals() if hasattr(s, "name")}
    if flags := sys.modules.get("absl.flags"):
        found["flags"] = sorted(flags.FLAGS)
    if jax := sys.modules.get("jax"):
        found["jax"] = {name: repr(value) for name, value in jax.config.values.items()}
    if numpy := sys.modules.get("numpy"):
        state = numpy.random.get_state()[1][:4].tolist()
        found["numpy"] = [repr(numpy.geterr()), repr(numpy.get_printoptions()), state]
    if "PIL.ImageFile" in sys.modules:
        from PIL import Image, ImageFile
        found["pillow"] = [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES]
    return found

def everything():
    import t2i_jax
    for module in pkgutil.walk_packages(t2i_jax.__path__, "t2i_jax."):
        importlib.import_module(module.name)
"""


def run(program):
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", LOOK + program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def imported_by_files():
    """Whatever else the package's files import when they are imported, modules and names of modules."""
    for file in (REPO / "t2i_jax").rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def test_importing_the_package_changes_nothing_and_imports_no_jax():
    before, after, modules = run(
        "before = look(); import t2i_jax; print(json.dumps([before, look(), sorted(sys.modules)]))"
    )
    assert before == after
    assert not {"jax", "numpy", "absl", "absl.flags"} & set(modules)


def test_importing_every_module_changes_nothing_beside_what_others_do():
    """What libraries do when they are imported is theirs: they are imported before."""
    others = sorted({name for name in imported_by_files() if not name.startswith("t2i_jax")})
    before, after, count = run(f"""
for name in {others}:
    try:
        importlib.import_module(name)
    except ImportError:  # no module, but a name in one
        pass
before = look()
everything()
print(json.dumps([before, look(), sum(name.startswith("t2i_jax.") for name in sys.modules)]))
""")
    assert count > 100
    assert {"flags", "jax", "numpy", "pillow"} <= set(before)
    for what in before:
        assert before[what] == after[what], what
