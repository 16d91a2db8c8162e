"""Every code block of the pages: Python runs, commands are parsed, and run where that takes seconds."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from blocks import blocks, commands
from conftest import QUICK
from PIL import Image

from t2i_jax import cli
from t2i_jax.config import load_config
from t2i_jax.errors import UserError

REPO = Path(__file__).parents[1]
PAGES = sorted([REPO / "README.md", *(REPO / "docs").rglob("*.md"), *(REPO / "examples").rglob("README.md")])
PAGES = [page for page in PAGES if page.parent.name != "notebooks"]  # which are executed as a whole
IDS = [str(page.relative_to(REPO)) for page in PAGES]
LANGUAGES = {"sh", "python", "text", "", "json"}  # "" and "text" show what is no program

# Commands of the pages that are parsed and not run, by reason. A new one must be worth raising its number.
NOT_RUN = {
    "download": 39,
    "training": 38,
    "benchmark": 8,
    "program": 9,
    "make": 2,
    "server": 3,
    "several machines": 1,
}
PROGRAMS = {"pip", "source", "tensorboard"}  # of others, in blocks without a mark


def of_language(page, language):
    return [block for block in blocks(page.read_text()) if block.language == language]


def why_not_run(words, marked):
    """The reason why a command is parsed alone; "" for one that is run."""
    program, *rest = [word.removeprefix(".venv/bin/") for word in words]
    if marked:
        return marked
    if program == "make":
        return "make"
    if program == "python":
        if rest[0] != "train.py":
            return "benchmark"
        rest[0] = "train"
    elif program != "t2i":
        return "program"
    config = next((word for word in rest if word.startswith("--config")), "")
    if rest[0] == "serve":
        return "server"
    trains = rest[0] == "train" or (rest[0] == "doctor" and config)
    return "training" if trains and not config.endswith(":smoke") else ""


def check(words):
    """Whether a command is one: its flags, configs, fields, targets and files are there."""
    program, *rest = [word.removeprefix(".venv/bin/") for word in words]
    if program == "make":
        targets = re.findall(r"^([a-z.-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif program == "t2i" and rest[0].startswith("--"):
        with suppress(SystemExit):  # such as --version, which prints and leaves
            cli.parse(rest)
    elif program == "t2i" or rest[:1] == ["train.py"]:
        args = cli.parse(["train", *rest[1:]] if program == "python" else rest)
        if getattr(args, "config", None):  # the run to start from is made by another page
            load_config(args.config, [one for one in args.overrides if not one.startswith("--config.init_from=")])
    elif program == "python" and rest[0] == "-m":
        assert rest[1] == "pytest"
    elif program == "python":
        source = (REPO / rest[0]).read_text()
        assert not [word for word in rest if word.startswith("--") and f'"{word}"' not in source]
    elif program == "pip" and rest[0] == "install":
        extras = re.findall(r"\.\[(.+)\]", " ".join(rest))
        assert not [extra for extra in extras if f"\n{extra} = [" not in (REPO / "pyproject.toml").read_text()]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder that has what a checkout has, and a config of one's own."""
    for name in ("configs", "train.py"):
        (tmp_path / name).symlink_to(REPO / name)
    (tmp_path / "mine").mkdir()
    shutil.copy(REPO / "configs" / "dalle.py", tmp_path / "mine" / "experiment.py")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def place(desk, smoke_run, data_dir):
    """It, with all else that the pages name, tiny: data, runs, pictures and prompts."""
    (desk / "data").symlink_to(data_dir)
    shutil.copytree(smoke_run.translator, desk / "runs" / "quickstart" / "translator")
    shutil.copytree(smoke_run.tokenizer, desk / "runs" / "quickstart" / "tokenizer")
    (desk / "prompts.txt").write_text("a red seven\na green five\n")
    (desk / "photos").mkdir()
    for name in "0123":
        noise = np.random.default_rng(int(name)).integers(0, 256, (80, 60, 3), np.uint8)
        Image.fromarray(noise).save(desk / "photos" / f"{name}.png")
        (desk / "photos" / f"{name}.txt").write_text(f"picture {name}")
    return desk


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_is_one(page, desk):
    assert {block.language for block in blocks(page.read_text())} <= LANGUAGES
    assert page.read_text().count("```") == 2 * len(blocks(page.read_text())), "a fence without its other half"
    for block in of_language(page, "sh"):
        for line, words in commands(block.code):
            try:
                check(words)
            except Exception as error:
                pytest.fail(f"{line}\n{error!r}")
            assert block.marked or why_not_run(words, "") != "program" or words[0] in PROGRAMS, line


@pytest.mark.parametrize(
    "line",
    [
        "t2i sample --runn RUN",
        "t2i train --config=translater:digits",
        "python train.py --config=configs/translator.py:digits --config.stepz=3",
        "STEPS=--config.steps=0 && t2i train --config=translator:digits $STEPS",
        "make quickstrat",
        "python benchmarks/gpu.py --fast",
        "python benchmarks/no.py",
        "pip install -e '.[phots]'",
    ],
)
def test_a_wrong_command_is_none(line, desk):
    ((_, words),) = commands(line)
    with pytest.raises((UserError, AssertionError, OSError)):
        check(words)


def test_what_is_not_run_is_counted():
    found = Counter(
        why_not_run(words, block.marked)
        for page in PAGES
        for block in of_language(page, "sh")
        for _, words in commands(block.code)
    )
    del found[""]
    assert not found - Counter(NOT_RUN), f"{dict(found)}; run it, or raise its number and say why"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if of_language(page, "python")], ids=lambda page: page.stem
)
def test_python_runs_and_gives_the_shapes_that_it_says(page, place):
    shutil.copytree(place / "runs" / "quickstart" / "translator", place / "digits")  # as an export would lie there
    names = {}
    for block in of_language(page, "python"):
        exec(block.code, names)
        for name, dtype, shape in re.findall(r"^(\w+) = .*# (\w+) (\[[\d, ]+\])", block.code, re.MULTILINE):
            assert (str(names[name].dtype), list(names[name].shape)) == (dtype, json.loads(shape)), name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_figure_has_a_script():
    listed = (REPO / "docs" / "figures.md").read_text()
    assert not [path.name for path in (REPO / "docs").glob("*.png") if f"`{path.name}`" not in listed]


def after(option, words):
    """What follows each place where a command gives an option."""
    return [value for word, value in pairwise(words) if word == option]


def lay_runs(found, place, smoke):
    """Make the runs that commands read and do not write, should the page's own be some that take minutes."""
    written = {path for words in found for path in after("--out", words)}
    kinds = {"patch_vqvae": "patch_vqvae", "vae": "vae", "prior": "prior"}
    for path in {path for words in found for path in after("--run", words)} - written:
        kind = next((kind for piece, kind in kinds.items() if piece in Path(path).name), "translator")
        if not (place / path).exists():
            shutil.copytree(smoke.run(kind), place / path)


def runnable(page):
    """Lines of a page that are run, block after block."""
    for block in of_language(page, "sh"):
        found = commands(block.code)
        skipped = [words for _, words in found if why_not_run(words, block.marked)]
        if len(skipped) < len(found):
            yield block, [words for _, words in found if words not in skipped]


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if any(runnable(page))], ids=lambda page: page.stem)
def test_commands_run(page, place, smoke):
    programs = place / "bin"
    programs.mkdir()
    t2i = "import sys; from t2i_jax.cli import main; sys.exit(main())"
    for name, start in {"t2i": f"-c '{t2i}'", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(REPO), "XLA_FLAGS": QUICK}
    for block, run in runnable(page):
        lines = []
        for line in block.code.replace("\\\n", " ").splitlines():
            found = commands(line)
            if all(words in run for _, words in found):
                lines.append(line.replace(".venv/bin/", ""))
        lay_runs(run, place, smoke)
        script = "\n".join([*lines, "wait"])
        done = subprocess.run(
            ["bash", "-eu", "-c", script], cwd=place, env=os.environ | environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


@pytest.mark.long
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", REPO / "mkdocs.yml", "-d", site]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Translator" in (site / "reference" / "pipelines.html").read_text()
    elsewhere = re.compile(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="?(?:https?:)?//')
    assert not [page for page in site.rglob("*.html") if elsewhere.search(page.read_text())]
