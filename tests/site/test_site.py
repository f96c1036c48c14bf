"""The documentation site in a browser, as `make docs` built it: `make test-docs`."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import TimeoutError

pytestmark = pytest.mark.docs
SITE = Path(__file__).parents[2] / "site"
PAGES = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if path.name != "404.html")
LOUD = ("error", "warning")
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *given: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_site_is_there() -> None:
    wanted = {"index.html", "RESULTS.html", "docs/concepts.html", "docs/configuration.html", "reference/index.html"}
    assert wanted <= {*PAGES}, "make docs builds it"


def test_pages_open_without_a_complaint(browser: Any, address: str) -> None:
    """No error on the console, nothing asked of another host, every figure loads, nothing wider than the window: wide
    and narrow, light and dark."""
    own = (address, "data:", "blob:")
    for width, scheme in ((1280, "light"), (390, "dark")):
        opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        said: list[str] = []
        opened.on("console", lambda message, said=said: said.append(message.text) if message.type in LOUD else None)
        opened.on("pageerror", lambda error, said=said: said.append(str(error)))
        opened.on(
            "requestfailed", lambda asked, said=said: None if "ABORTED" in asked.failure else said.append(asked.url)
        )
        opened.on("request", lambda asked, said=said: None if asked.url.startswith(own) else said.append(asked.url))
        for page in PAGES:
            opened.goto(f"{address}/{page}", wait_until="load")
            with suppress(TimeoutError):  # the theme's scripts move its bars after the page has loaded
                opened.wait_for_function(f"{WIDER} <= 0", timeout=10_000)
            broken = opened.evaluate("[...document.images].filter(each => !each.naturalWidth).map(each => each.src)")
            wider = opened.evaluate(WIDER)
            assert not said and not broken and wider <= 0, (page, width, said, broken, wider)
        opened.close()


def test_no_link_is_dead(browser: Any, address: str) -> None:
    """Every link leads to a page or file of the site and, where it has a fragment, to a heading."""
    opened = browser.new_page()
    anchors: dict[str, set[str]] = {}
    links: dict[str, list[str]] = {}
    for page in PAGES:
        opened.goto(f"{address}/{page}", wait_until="domcontentloaded")
        anchors[page] = {*opened.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")}
        links[page] = opened.evaluate("[...document.querySelectorAll('a[href]')].map(each => each.href)")
    opened.close()
    dead = []
    for page, found in links.items():
        for link in {each.removeprefix(address).lstrip("/") for each in found if each.startswith(address)}:
            path, _, fragment = link.partition("#")
            path = path or "index.html"
            if not (SITE / path).is_file() or (fragment and path in anchors and fragment not in anchors[path]):
                dead.append(f"{page}: {link}")
    assert not dead
