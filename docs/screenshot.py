"""Screenshots of the page of `t2i serve`, and of TensorBoard, by the distribution's Chromium.

t2i serve --run runs/quickstart/translator &
python docs/screenshot.py http://127.0.0.1:7860/ --prompt "a green five" --inside --out docs/page-desktop.png
python docs/screenshot.py http://127.0.0.1:7860/ --prompt "a green five" --width 390 --out docs/page-phone.png
tensorboard --logdir runs &
python docs/screenshot.py http://localhost:6006/ --tags "samples|loss|examples" --out docs/tensorboard.png
"""

import argparse
import shutil

from playwright.sync_api import sync_playwright


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="to be drawn on the page")
    what.add_argument("--tags", help="regular expression of what TensorBoard is to show")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--inside", action="store_true", help="look inside the first picture, too")
    parser.add_argument("--out", required=True)
    args = parser.parse_args(argv)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": args.width, "height": 900})
        page.goto(args.address)
        (show_tags if args.tags else draw)(page, args)
        page.screenshot(path=args.out, full_page=True)


def draw(page, args):
    page.get_by_label("Prompt").first.fill(args.prompt)
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator(".t2i-status", has_text="done").first.wait_for()
    if args.inside:
        page.get_by_text("Look inside a picture").click()
        page.get_by_role("button", name="Look inside", exact=True).click()
        page.get_by_text("nats a token").wait_for()


def show_tags(page, args):
    page.set_viewport_size({"width": args.width, "height": 1000})  # its panes scroll by themselves
    page.get_by_role("button", name="Settings").first.click()  # shuts what is open at first
    page.get_by_role("combobox", name="Filter tags (regex)").fill(args.tags)
    page.keyboard.press("Escape")
    page.wait_for_timeout(5000)  # curves are drawn after everything has come


if __name__ == "__main__":
    main()
