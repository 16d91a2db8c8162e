"""Hooks of mkdocs.yml: pages of the repository outside docs/ are on the site, and links lead to them; those to
notebooks lead to their pages.

On GitHub the same links lead to the files.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/results.md": "results.md",
    "examples/emoji/README.md": "emoji.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(?=[)#])")


def on_files(files, config):
    """Add the pages."""
    root = Path(config.config_file_path).parent
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown, page, **_):
    """Point links between the repository's files at their pages; strict mode finds what leads nowhere."""
    here = page.file.src_uri
    source = {page: path for path, page in PAGES.items()}.get(here, f"docs/{here}")

    def moved(link):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[0]))
        if target.startswith("colab/"):
            target = f"notebooks/{posixpath.basename(target).removesuffix('.ipynb')}.md"
        return posixpath.relpath(PAGES.get(target, target.removeprefix("docs/")), posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)
