"""One JupyterLab and one Chromium for all browser tests; a fresh page for each, or one that several share (`desk`); a
screenshot of what failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from scripts import chromium
from tests.browser import desk as on_desk
from tests.browser import server

Report = pytest.StashKey[pytest.TestReport]()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Lab]:
    """The running JupyterLab; `lab.folder` is what its file browser shows."""
    lab = server.start(tmp_path_factory.mktemp("lab"))
    yield lab
    server.stop(lab)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium, else Playwright's own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=list(chromium.FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def console() -> list[str]:
    """What the page wrote to its console as errors, and exceptions that nobody caught; shown beside a failure."""
    return []


def new_page(browser: Browser, url: str, token: str, console: list[str]) -> Page:
    """A page of its own cookies and storage, signed in with a token."""
    context = browser.new_context(
        base_url=url, viewport={"width": 1680, "height": 1050}, permissions=["clipboard-read", "clipboard-write"]
    )
    context.request.get(f"lab?token={token}")
    page = context.new_page()
    page.on("console", lambda message: console.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: console.append(str(error)))
    return page


def keep_what_failed(request: pytest.FixtureRequest, *pages: Page) -> None:
    """A screenshot of each page, when the test failed."""
    report = request.node.stash.get(Report, None)
    if report is None or not report.passed:
        server.RESULTS.mkdir(exist_ok=True)
        name = re.sub(r"\W+", "-", request.node.name)
        for number, page in enumerate(pages):
            page.screenshot(path=server.RESULTS / f"{name}{number or ''}.png")


@pytest.fixture
def signed_in(browser: Browser, console: list[str], request: pytest.FixtureRequest) -> Iterator[Callable[..., Page]]:
    """Makes pages, signed in with a token; takes a screenshot when the test fails."""
    pages: list[Page] = []

    def new(url: str, token: str) -> Page:
        pages.append(new_page(browser, url, token, console))
        return pages[-1]

    yield new
    keep_what_failed(request, *pages)
    for page in pages:
        page.context.close()


@pytest.fixture
def page(signed_in: Callable[..., Page], lab: server.Lab) -> Page:
    """A page signed in to `lab`; relative addresses are the lab's."""
    return signed_in(lab.url, lab.token)


@pytest.fixture(scope="session")
def opened(browser: Browser, lab: server.Lab) -> Iterator[tuple[Page, list[str]]]:
    """A page with a notebook, the demo model in its kernel, and what its console heard."""
    heard: list[str] = []
    page = new_page(browser, lab.url, lab.token, heard)
    on_desk.open_demo(page, lab, "desk.ipynb", workspace="desk")
    yield page, heard
    page.context.close()


@pytest.fixture
def desk(opened: tuple[Page, list[str]], console: list[str], request: pytest.FixtureRequest) -> Iterator[Page]:
    """That page with nothing made yet: for tests that leave the notebook and its kernel as they are."""
    page, heard = opened
    heard.clear()
    on_desk.clear(page)
    yield page
    console.extend(heard)
    keep_what_failed(request, page)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keeps the outcome where the `page` fixture finds it, and prints the page's console beside a failure."""
    report: pytest.TestReport = yield
    if report.when == "call":
        item.stash[Report] = report
        heard = getattr(item, "funcargs", {}).get("console")
        if report.failed and heard:
            report.sections.append(("the page's console", "\n".join(heard)))
    return report
