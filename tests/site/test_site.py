"""The documentation site in a browser, as `make docs` built it: `make test-docs`."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docs
SITE = Path(__file__).parents[2] / "site"
PAGES = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if path.name != "404.html")


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
    opened = browser.new_page()
    own = (address, "data:", "blob:")
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("requestfailed", lambda asked: said.append(asked.url) if "ABORTED" not in asked.failure else None)
    opened.on("request", lambda asked: said.append(asked.url) if not asked.url.startswith(own) else None)
    for page in PAGES:
        opened.goto(f"{address}/{page}", wait_until="load")
        for width, scheme in ((1280, "light"), (390, "dark")):
            opened.set_viewport_size({"width": width, "height": 900})
            opened.emulate_media(color_scheme=scheme)
            opened.wait_for_timeout(100)  # the layout settles
            broken = opened.evaluate("[...document.images].filter(each => !each.naturalWidth).map(each => each.src)")
            wide = opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert not said and not broken and wide <= 0, (page, width, said, broken, wide)
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
