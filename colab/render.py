"""Execute the notebooks, and write what they show to docs/notebooks, for people who read without running.

    python colab/render.py [NAME ...] --folder runs/notebooks

A notebook is executed in FOLDER as it is. Runs that are finished there are not trained again.
"""

import argparse
import io
import os
import re
import sys
import textwrap
import time
from datetime import date
from pathlib import Path

import jax
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from PIL import Image

HERE = Path(__file__).resolve().parent
PAGES = HERE.parent / "docs" / "notebooks"
LARGEST = 300_000  # bytes of a picture, above which it gets a palette of 256 colours


def execute(path: Path, folder: Path, timeout: float | None = None, **environment: str) -> nbformat.NotebookNode:
    """A notebook with its outputs, executed in `folder` by this interpreter; `timeout` is seconds a cell."""
    notebook = nbformat.read(path, as_version=4)
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # `!t2i` of the same
    code = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    client = NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": str(folder)}})
    return client.execute(env={**os.environ, "PATH": commands, "PYTHONPATH": code, **environment})


def to_markdown(notebook: nbformat.NotebookNode, name: str, about: str) -> tuple[str, dict[str, bytes]]:
    """A page, and its pictures by file name.

    Args:
      notebook: executed.
      name: of the notebook.
      about: a sentence on when and where that was, for the reader.
    """
    notebook.metadata["language_info"] = {"name": "ipython3"}  # it has lines that begin with ! or %
    headings, pictures = {}, {}
    for number, cell in enumerate(notebook.cells):
        heading = cell.source.splitlines()[0].lstrip("# ") if cell.source.startswith("#") else ""
        headings[number] = heading if cell.cell_type == "markdown" and heading else headings.get(number - 1, "")
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/jpeg", None)  # Pillow gives both
            if output.output_type == "stream":
                output.text = strip_ansi(output.text).replace("\r\n", "\n")  # as a terminal gets it
    exporter = MarkdownExporter(preprocessors=[CoalesceStreamsPreprocessor])  # of a bar its last state
    page, resources = exporter.from_notebook_node(notebook, {"unique_key": name, "output_files_dir": ""})
    for number, heading in headings.items():
        page = page.replace(f"![png]({name}_{number}_", f"![{heading}]({name}_{number}_")
    for file, content in resources["outputs"].items():
        if len(content) > LARGEST:
            content = encoded(Image.open(io.BytesIO(content)).convert("RGB").quantize(256))
        pictures[file] = content
    title, _, rest = page.strip().partition("\n")
    rest = re.sub(r"(\s*\n){3,}", "\n\n", rest)
    about = textwrap.fill(f"*{about}*", 120, break_on_hyphens=False)
    return f"{title}\n\n{about}\n\n{rest.strip()}\n", pictures


def encoded(image: Image.Image) -> bytes:
    """As a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted(path.stem for path in HERE.glob("*.ipynb"))
    parser.add_argument("names", nargs="*", default=names, metavar="NAME", help=f"{', '.join(names)} (all)")
    parser.add_argument("--folder", type=Path, default=Path("runs/notebooks"), help="where they are executed")
    parser.add_argument("--note", default="", help="for the page: the machine, and how its runs came about")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    PAGES.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        began = time.monotonic()
        notebook = execute(HERE / f"{name}.ipynb", arguments.folder)
        minutes = (time.monotonic() - began) / 60
        about = (
            f"`colab/{name}.ipynb`, executed by `make notebooks` in {minutes:.1f} minutes on {date.today()}:"
            f" {os.cpu_count()} CPU cores, {jax.devices()[0].device_kind}, jax {jax.__version__}. {arguments.note}"
        )
        page, pictures = to_markdown(notebook, name, about.strip())
        for old in PAGES.glob(f"{name}_*.png"):
            old.unlink()
        (PAGES / f"{name}.md").write_text(page)
        for file, content in pictures.items():
            (PAGES / file).write_bytes(content)
        print(PAGES / f"{name}.md")


if __name__ == "__main__":
    main()
