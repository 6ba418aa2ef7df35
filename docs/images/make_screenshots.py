"""The pictures of docs/dashboard.md, of a search of your own.

    .venv/bin/python docs/images/make_screenshots.py sqlite:///cnn-search.db [--study cifar10]

Serves the dashboard and photographs it in a headless Chromium, which has to be installed: `study.png` is the
study's page where its progress plots are, `trial.png` the best trial's page, `curves.png` and `confusion.png`
what it shows as pictures.
"""

import argparse
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Page, expect, sync_playwright

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 1440, 900
TRIAL_WIDTH, TRIAL_HEIGHT = 1920, 1200
"""A trial's page is as wide as its recipe, and its pictures are at the end."""
WAIT_MILLISECONDS = 60_000


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("storage")
    parser.add_argument("--study", default="cifar10")
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium on this machine; apt-get install chromium")
    expect.set_options(timeout=WAIT_MILLISECONDS)
    with serve(options.storage) as address, sync_playwright() as playwright:
        studies = read_json(f"{address}/api/studies")["study_summaries"]
        study_id = next(one["study_id"] for one in studies if one["study_name"] == options.study)
        best = read_json(f"{address}/best.json?study={quote(options.study)}")["number"]
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        take_study(page, f"{address}/dashboard/studies/{study_id}")
        take_trial(page, f"{address}/dashboard/studies/{study_id}/trials?numbers={best}", best)
        browser.close()


def take_study(page: Page, address: str) -> None:
    """The study's page, with the progress plots in its middle."""
    page.goto(address)
    plot = page.locator("[id='user-defined-plot:progress-by-time']")
    expect(plot.get_by_text("article: 77-78 %")).to_be_visible()
    expect(page.locator("[id='user-defined-plot:progress-by-trials'] .main-svg").first).to_be_visible()
    expect(page.locator("#graph-timeline .main-svg").first).to_be_visible()
    middle = "plot => scrollBy(0, plot.getBoundingClientRect().bottom + 24 - innerHeight)"
    plot.evaluate(middle)
    page.screenshot(path=FOLDER / "study.png")


def take_trial(page: Page, address: str, number: int) -> None:
    """A trial's page with its files, and each of its pictures by itself."""
    page.set_viewport_size({"width": TRIAL_WIDTH, "height": TRIAL_HEIGHT})
    page.goto(address)
    for kind in ("curves", "confusion"):
        picture = page.get_by_role("img", name=f"trial-{number}-{kind}.png")
        expect(picture).to_be_visible()
        source = picture.get_attribute("src") or ""
        with urllib.request.urlopen("/".join(address.split("/")[:3]) + source) as answer:
            (FOLDER / f"{kind}.png").write_bytes(answer.read())
    page.wait_for_load_state("networkidle")
    page.screenshot(path=FOLDER / "trial.png")


def read_json(address: str) -> Any:
    """An answer of the dashboard."""
    with urllib.request.urlopen(address) as answer:
        return json.load(answer)


@contextmanager
def serve(storage: str) -> Iterator[str]:
    """The dashboard's address, without the page, while it is served."""
    command = [Path(sys.executable).with_name("cnn-search"), "dashboard", "--storage", storage, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if not address:
                raise SystemExit("the dashboard did not start")
            yield address.removesuffix("/dashboard")
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
