"""The dashboard in a real browser, over a study whose trials were trained: what a user sees and gets."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial, TrialState
from playwright.sync_api import Browser, Download, Error, Locator, Page, expect, sync_playwright
from served import Command, make_study, read_all
from test_search_worker import SPACE, make_worker

from search.study import OpenStudy, Wishes, open_or_create_study
from storage.database import Database, open_database
from storage.trial_files import read_file

WAIT_MILLISECONDS = 60_000
"""For something to appear, on a machine that does other work too."""
PASSWORD = "hünter 2"
REFUSED = "this dashboard is read-only; `cnn-search dashboard --allow-edits` allows changes"


@dataclass(frozen=True)
class Searched:
    """A study whose trials were trained, and who serves it."""

    opened: OpenStudy
    command: Command

    @property
    def database(self) -> Database:
        """Where it is."""
        return self.opened.database

    @property
    def best(self) -> FrozenTrial:
        """The complete trial of highest value."""
        return self.opened.study.best_trial

    def file(self, trial: FrozenTrial, suffix: str) -> bytes:
        """One of a trial's files, as it is stored."""
        return read_file(self.opened.artifacts, self.database.storage, trial, suffix).content

    def page_of(self, trial: FrozenTrial) -> str:
        """The trial's page."""
        study_id = self.opened.study._study_id
        return f"{self.command.url}/dashboard/studies/{study_id}/trials?numbers={trial.number}"


@dataclass
class Visit:
    """A user with a browser of their own, and what it complains of."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def open(self, url: str, text: str) -> None:
        """Go there, and wait until the text is to be seen."""
        self.page.goto(url)
        self.see(text)

    def see(self, text: str) -> Locator:
        """Wait until the text is to be seen."""
        found = self.page.get_by_text(text).first
        expect(found).to_be_visible()
        return found

    def download(self, link: Locator) -> tuple[str, bytes]:
        """Click on a link: the name and content of the file that the browser keeps."""
        with self.page.expect_download() as started:
            link.click()
        download: Download = started.value
        assert download.failure() is None
        return download.suggested_filename, Path(download.path()).read_bytes()


def find_chromium() -> str:
    """The system's Chromium; without one the tests are left out, but never in CI."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        reason = "no chromium on this machine (apt-get install chromium): the browser's tests are left out"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    path = find_chromium()
    with sync_playwright() as playwright:
        # Its sandbox wants a user that is not root, or rights that containers do not give.
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def searched(
    browser: Browser, tensorflow: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Searched]:
    """Three trials of three epochs on 200 images, the article's first; served as by default."""
    url = f"sqlite:///{tmp_path_factory.mktemp('browser') / 'study.db'}"
    database = open_database(url)
    opened, _ = open_or_create_study(database, "cifar10", Wishes(SPACE, max_epochs=3, train_samples=200))
    database.limit_trials(opened.study, 3)
    make_worker(opened, lambda _: None).run()
    with Command(url) as command:
        yield Searched(opened, command)
    database.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """A user who has visited nothing yet; nothing that they saw may have failed in the browser."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(WAIT_MILLISECONDS)
    expect.set_options(timeout=WAIT_MILLISECONDS)
    page = context.new_page()
    made = Visit(page)
    page.on("console", lambda said: made.complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: made.complaints.append(str(error)))
    yield made
    context.close()
    assert made.complaints == []


def progress_plot(page: Page, against: str) -> Locator:
    """One of the two progress plots, once it is drawn."""
    plot = page.locator(f"[id='user-defined-plot:progress-by-{against}']")
    expect(plot.locator(".main-svg").first).to_be_visible()
    return plot


def test_the_list_of_studies_leads_to_the_study(searched: Searched, visit: Visit) -> None:
    """From the address that the command prints."""
    visit.open(searched.command.url, "Direction: MAXIMIZE")
    visit.see("cifar10").click()

    visit.see("Hyperparameter Importance")
    assert visit.page.url == f"{searched.command.url}/dashboard/studies/{searched.opened.study._study_id}"
    # The study's metric by its name.
    visit.see("validation accuracy")


@pytest.mark.parametrize("against", ["time", "trials"])
def test_the_studys_page_shows_the_progress_toward_the_article(
    searched: Searched, visit: Visit, against: str
) -> None:
    """Every trial as a point, the best so far, the band of 77-78 % and the article's three results."""
    visit.open(f"{searched.command.url}/dashboard/studies/1", "article: 77-78 %")
    plot = progress_plot(visit.page, against)

    best = searched.best
    assert best.value is not None
    for text in ("150 ep.: 78.22 %", "200 ep.: 77.77 %", "100 ep.: 77.37 %", "77.37 % not reached yet"):
        expect(plot.get_by_text(text)).to_be_visible()
    expect(plot.get_by_text(f"best so far {100 * best.value:.2f} %, trial {best.number}")).to_be_visible()
    drawn = plot.evaluate("plot => ({data: plot.data, shapes: plot.layout.shapes})")
    states = [trace for trace in drawn["data"] if trace["name"] in ("complete", "pruned", "diverged")]
    assert sum(len(trace["x"]) for trace in states) == 3
    (band,) = (shape for shape in drawn["shapes"] if shape["type"] == "rect")
    assert (band["y0"], band["y1"]) == (77, 78)
    assert shows_band(plot)


def shows_band(plot: Locator) -> bool:
    """Whether the band is there in its colour, as wide as the plot and where the axis has 77 to 78."""
    return bool(
        plot.evaluate(
            """plot => {
                const band = [...plot.querySelectorAll(".shapelayer path")].find(
                    path => getComputedStyle(path).fill === "rgb(234, 88, 12)");
                const box = band.getBoundingClientRect(), axis = plot._fullLayout.yaxis;
                const top = plot.getBoundingClientRect().top + axis._offset;
                return box.width > 0.9 * plot._fullLayout.xaxis._length
                    && Math.abs(box.top - (top + axis.d2p(78))) < 2
                    && Math.abs(box.bottom - (top + axis.d2p(77))) < 2;
            }"""
        )
    )


def test_the_studys_note_says_how_to_get_the_best_model(searched: Searched, visit: Visit) -> None:
    """Its link gives the file that is stored, under a telling name."""
    best = searched.best
    visit.open(f"{searched.command.url}/dashboard/studies/1/note", "Fetch the best model")

    name, content = visit.download(visit.page.get_by_role("link", name="best.h5"))

    assert name == f"trial-{best.number}-{best.value:.4f}.h5"
    assert content == searched.file(best, ".h5")


def test_a_trials_page_shows_its_pictures(searched: Searched, visit: Visit) -> None:
    """Learning curves and confusion matrix, which the browser has really loaded."""
    best = searched.best
    visit.open(searched.page_of(best), f"trial-{best.number}-curves.png")
    visit.see(f"trial-{best.number}-confusion.png")

    for kind in ("curves", "confusion"):
        name = f"trial-{best.number}-{kind}.png"
        picture = visit.page.get_by_role("img", name=name)
        expect(picture).to_be_visible()
        visit.page.wait_for_function("picture => picture.complete", arg=picture.element_handle())
        width, height = picture.evaluate("picture => [picture.naturalWidth, picture.naturalHeight]")
        assert width > 500
        assert height > 500


def test_a_trials_files_are_downloads_of_what_is_stored(searched: Searched, visit: Visit) -> None:
    """Byte by byte, under their names; the model's tells the trial and its value."""
    best = searched.best
    model = f"trial-{best.number}-{best.value:.4f}.h5"
    visit.open(searched.page_of(best), model)

    for name in (model, f"trial-{best.number}-history.csv", f"trial-{best.number}-confusion.png"):
        link = visit.page.locator(f"a[download='{name}']")
        suffix = name.removeprefix(f"trial-{best.number}")
        assert visit.download(link) == (name, searched.file(best, suffix))
    assert searched.file(best, ".h5").startswith(b"\x89HDF")


def test_a_trials_history_is_a_table(searched: Searched, visit: Visit) -> None:
    """A row an epoch, where a click on the table's file shows it."""
    best = searched.best
    name = f"trial-{best.number}-history.csv"
    visit.open(searched.page_of(best), name)

    card = visit.page.locator(".MuiCard-root", has=visit.page.locator(f"a[download='{name}']"))
    card.get_by_role("button").first.click()

    table = visit.page.locator(".MuiModal-root table")
    expect(table.get_by_text("validation_accuracy")).to_be_visible()
    for epoch, accuracy in best.intermediate_values.items():
        row = table.locator("tbody tr").nth(epoch - 1)
        expect(row.locator("td").first).to_have_text(str(epoch))
        expect(row.get_by_text(str(accuracy), exact=True).first).to_be_visible()


def test_a_refused_edit_says_why(searched: Searched, visit: Visit) -> None:
    """In the words of the refusal, on the page; nothing is changed."""
    before = read_all(searched.database)
    visit.open(f"{searched.command.url}/dashboard/studies/1/note", "Fetch the best model")
    visit.page.locator("main button, button:has([data-testid='EditIcon'])").last.click()
    editor = visit.page.locator("textarea").first
    editor.fill("mine")
    visit.page.get_by_role("button", name="Save").click()

    visit.see(f"Failed: {REFUSED}")
    assert read_all(searched.database) == before
    # The browser reports the answer, and the page that it got one.
    assert len(visit.complaints) == 2
    assert "403" in visit.complaints[0]
    visit.complaints.clear()


def test_a_script_on_the_page_can_change_nothing_either(searched: Searched, visit: Visit) -> None:
    """As one in a note would be, which Markdown keeps out."""
    before = read_all(searched.database)
    visit.open(searched.command.url, "cifar10")

    for method, path in (
        ("PUT", "/api/studies/1/note"),
        ("DELETE", "/api/studies/1"),
        ("POST", "/api/studies/1/rename"),
    ):
        answer = visit.page.evaluate(
            """async ([method, path]) => {
                const headers = {"Content-Type": "application/json"};
                const body = JSON.stringify({version: 9, body: "mine", study_name: "mine"});
                const answer = await fetch(path, {method, headers, body});
                return [answer.status, await answer.json()];
            }""",
            [method, path],
        )
        assert answer == [403, {"reason": REFUSED}]
    assert read_all(searched.database) == before
    visit.complaints.clear()


def test_pages_of_other_sites_get_nothing(searched: Searched, visit: Visit) -> None:
    """A page that the user has open elsewhere reads no file, shows no picture and frames no page."""
    best, page = searched.best, visit.page
    metas = get_all_artifact_meta(best, storage=searched.database.storage)
    curves = next(meta.artifact_id for meta in metas if "curves" in meta.filename)
    picture = f"{searched.command.url}/artifacts/{searched.opened.study._study_id}/{best._trial_id}/{curves}"
    assert searched.command.ask(urlsplit(picture).path).body.startswith(b"\x89PNG")
    page.route("http://evil.example/", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    page.goto("http://evil.example/")

    got: list[str] = page.evaluate(
        """async ([picture, dashboard]) => {
            const read = url => fetch(url).then(() => "read", () => "refused");
            const shown = new Promise(resolve => {
                const image = new Image();
                image.onload = () => resolve("shown");
                image.onerror = () => resolve("refused");
                image.src = picture;
            });
            const frame = document.createElement("iframe");
            frame.src = dashboard + "/dashboard";
            const framed = new Promise(resolve => { frame.onload = resolve; });
            document.body.append(frame);
            await framed;
            return [await read(picture), await read(dashboard + "/api/studies"), await shown];
        }""",
        [picture, searched.command.url],
    )

    assert got == ["refused"] * 3
    # What Chromium shows in the place of a page that may not be there.
    assert page.frames[1].url.startswith("chrome-error://")
    visit.complaints.clear()


def test_an_open_page_follows_the_search(searched: Searched, visit: Visit) -> None:
    """A trial that ends while the page is open appears on it, in the plot too, which no worker has drawn."""
    shown = make_study(searched.database, "followed")
    trial = shown.ask(0.5, 0.77)
    visit.open(f"{searched.command.url}/dashboard/studies/{shown.study_id}", "Hyperparameter Importance")
    expect(visit.page.locator("[id^=user-defined-plot]")).to_have_count(0)

    shown.finish(trial, 0.7812)

    visit.see("best so far 78.12 %, trial 0")
    visit.see("77.37 % first reached")
    assert shows_band(progress_plot(visit.page, "time"))
    expect(visit.page.get_by_text("Best Trial (number=0)")).to_be_visible()
    assert shown.opened.study.trials[0].state == TrialState.COMPLETE


def test_a_password_is_asked_for_once(searched: Searched, browser: Browser) -> None:
    """Pages, pictures and data come to whoever knows it, and nothing to others."""
    url = str(searched.database._url.render_as_string(hide_password=False))
    with Command(url, CNN_SEARCH_DASHBOARD_PASSWORD=PASSWORD) as command:
        stranger = browser.new_context()
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
            stranger.new_page().goto(f"{command.url}/dashboard")
        stranger.close()

        guest = browser.new_context(http_credentials={"username": "anyone", "password": PASSWORD})
        guest.set_default_timeout(WAIT_MILLISECONDS)
        page = guest.new_page()
        page.goto(f"{command.url}/dashboard/studies/1")
        expect(page.get_by_text("article: 77-78 %").first).to_be_visible()
        guest.close()
