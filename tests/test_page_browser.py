"""The page of `t2i serve` in a real browser: Chromium of the distribution, without its window."""

import io
import re
import shutil
import socket
import subprocess
import sys

import pytest
from PIL import Image
from processes import REPO

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run"]
SERVE = "import sys; from t2i_jax import cli; sys.exit(cli.main(sys.argv[1:]))"
PATIENCE = 120_000  # milliseconds

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium; apt-get install chromium"),
]


@pytest.fixture(scope="module")
def address(smoke_run):
    """Where `t2i serve` serves the smoke run."""
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = ["serve", "--run", str(smoke_run.translator), "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-c", SERVE, *argv], cwd=REPO, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline() == f"http://127.0.0.1:{port}/\n"
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium; apt-get install chromium")  # for other files that use it
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address, request):
    """The page, open; it asked nobody but its server for anything, and its script met no error."""
    width, height = getattr(request, "param", (1440, 900))
    page = chromium.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    errors, others = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda asked: others.append(asked.url))
    page.goto(address)
    page.get_by_role("button", name="Draw", exact=True).wait_for()
    yield page
    assert errors == []
    assert [url for url in others if not url.startswith((address, "data:", "blob:"))] == []
    page.close()


def drawn(page):
    page.locator(".t2i-status", has_text="done").first.wait_for()
    return page.locator(".t2i-pictures img:visible")


@pytest.mark.parametrize("page", [(390, 844), (1440, 900)], indirect=True, ids=["phone", "desktop"])
def test_type_wait_save_reload_and_read_an_error(page, address, smoke_run, tmp_path):
    page.get_by_label("Prompt").first.fill("a red wombat")
    page.get_by_label(re.compile("^Pictures")).first.fill("3")
    page.get_by_role("button", name="Draw", exact=True).click()
    assert drawn(page).count() == 3
    assert page.get_by_text("cannot follow them: wombat").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    with page.expect_download() as saving:
        page.get_by_role("link", name="Save picture 2 as PNG").click()
    picture = tmp_path / "picture.png"
    saving.value.save_as(picture)
    again = tmp_path / "again.png"
    argv = ["sample", "--run", str(smoke_run.translator), "--like", str(picture), "--out", str(again)]
    subprocess.run([sys.executable, "-c", SERVE, *argv], cwd=REPO, check=True)
    assert again.read_bytes() == picture.read_bytes()

    page.reload()
    page.get_by_role("button", name="Draw", exact=True).wait_for()
    assert page.locator(".t2i-pictures img").count() == 0
    page.get_by_label("Prompt").first.fill("a red " * 60)
    page.get_by_role("button", name="Draw", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert "this run reads at most" in page.get_by_role("alert").inner_text()


def test_by_the_keyboard_alone(page):
    page.get_by_label("Prompt").first.focus()
    page.keyboard.type("a blue four")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText || ''").strip() == "Draw":
            break
    page.keyboard.press("Enter")
    assert drawn(page).count() == 4
    with page.expect_download() as saving:
        for _ in range(3):
            page.keyboard.press("Tab")
            if "Save picture" in (page.evaluate("document.activeElement.ariaLabel") or ""):
                break
        page.keyboard.press("Enter")
    assert saving.value.suggested_filename == "picture-0-0.png"


def test_the_other_parts(page, tmp_path):
    page.get_by_label("Prompt").first.fill("a blue four")
    page.get_by_role("button", name="Draw", exact=True).click()
    drawn(page)
    page.get_by_text("Look inside a picture").click()
    page.get_by_role("button", name="Look inside", exact=True).click()
    page.get_by_text("nats a token").wait_for()
    assert page.locator(".t2i-pictures img:visible").count() == 4 + 2 + 3

    page.get_by_role("tab", name="Reconstruct").click()
    Image.new("RGB", (90, 60), "red").save(content := io.BytesIO(), "PNG")
    page.set_input_files("#t2i-upload", {"name": "a.png", "mimeType": "image/png", "buffer": content.getvalue()})
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    page.get_by_text("mean error").wait_for()
    page.set_input_files("#t2i-upload", {"name": "a.png", "mimeType": "image/png", "buffer": b"rubbish"})
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    page.get_by_text("in no format that is read").wait_for()

    page.get_by_role("tab", name="Compare").click()
    page.locator("input:visible, textarea:visible").first.fill("a blue four")
    page.get_by_role("button", name="Draw both").click()
    page.locator(".t2i-pictures a[download]:visible").nth(7).wait_for()
    assert page.locator(".t2i-pictures img:visible").count() == 8
