"""A stranger's path without the repository: the wheel, pictures of one's own, training, the page, an export."""

import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from processes import REPO
from test_own_pictures import SHORT, write_photographs
from test_page_browser import chromium, drawn  # noqa: F401
from test_wheel import wheel  # noqa: F401

PAGE = REPO / "docs" / "install.md"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_from_the_wheel_to_a_picture_of_an_export(wheel, chromium, tmp_path):  # noqa: F811
    write_photographs(tmp_path / "photos")
    (tmp_path / wheel.name).symlink_to(wheel)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    environment["PIP_CONSTRAINT"] = str(REPO / "requirements.lock")
    given = {"cwd": tmp_path, "env": environment, "text": True, "stdout": subprocess.PIPE}

    block = re.search(r"## From the wheel.*?```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    took = {}
    for command in block.splitlines():
        start, verb = time.perf_counter(), command.split()[1]
        command = " ".join([command, *(SHORT if verb == "train" else [])])
        if verb == "serve":
            with subprocess.Popen(["bash", "-c", f"exec {command}"], **given) as server:
                try:
                    _draw(chromium, server.stdout.readline().strip())
                finally:
                    server.terminate()
        else:
            done = subprocess.run(["bash", "-c", command], **given, stderr=subprocess.STDOUT)
            assert done.returncode == 0, (command, done.stdout)
        took[command.partition(" --config.steps")[0]] = round(time.perf_counter() - start, 1)
    print("\n".join(f"{seconds:7.1f} s  {command}" for command, seconds in took.items()))
    own, exported = (np.asarray(Image.open(tmp_path / name)) for name in ("grid.png", "same.png"))
    assert own.std() > 10
    np.testing.assert_array_equal(own, exported)


def _draw(chromium, address):  # noqa: F811
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.get_by_label("Prompt").first.fill("a cup of coffee")
    page.get_by_role("button", name="Draw", exact=True).click()
    assert drawn(page).count() == 4
    page.close()
