"""The pages in a real browser: nothing fails, nothing is fetched, every figure is drawn.

Chromium is driven over its debugging pipe, so no port is opened and no package is needed.
"""

import fcntl
import json
import os
import shutil
import signal
import time

import pytest
from report_pages import pages_of

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-pipe"
).split()

if not BROWSER and not os.environ.get("CI"):
    pytest.skip("Chromium is not installed, and CI is not set", allow_module_level=True)


class Browser:
    """A headless Chromium that tells all that happens while it loads a page."""

    def __init__(self, profile):
        assert BROWSER, "CI is set, but there is no Chromium to look at the pages with"
        (theirs_in, to), (back, theirs_out) = os.pipe(), os.pipe()
        # Chromium reads its file 3 and writes its file 4; keep our ends clear of these numbers.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
        self.pid = os.posix_spawn(
            BROWSER,
            [BROWSER, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[1], 4),
            ],
            setpgroup=0,
        )
        for end in (theirs_in, theirs_out, *ends):
            os.close(end)
        os.set_blocking(back, False)
        self.to, self.back, self.rest, self.events, self.count = to, back, b"", [], 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.page(f"{domain}.enable")

    def close(self):
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.to)
        os.close(self.back)

    def messages(self, deadline):
        """Messages as they come, until the deadline."""
        while True:
            while b"\0" in self.rest:
                message, self.rest = self.rest.split(b"\0", 1)
                yield json.loads(message)
            assert time.monotonic() < deadline, "Chromium does not answer"
            try:
                self.rest += os.read(self.back, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)

    def call(self, method, session=None, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data) :]
        for answer in self.messages(time.monotonic() + 60):
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def page(self, method, **parameters):
        return self.call(method, session=self.session, **parameters)

    def ask(self, expression):
        return self.page("Runtime.evaluate", expression=expression, returnByValue=True)["result"][
            "value"
        ]

    def load(self, url):
        """Load a page and return everything that happened, until it lay still for half a second."""
        self.events.clear()
        self.page("Page.navigate", url=url)
        loaded = any(event.get("method") == "Page.loadEventFired" for event in self.events)
        for event in () if loaded else self.messages(time.monotonic() + 60):
            self.events.append(event)
            if event.get("method") == "Page.loadEventFired":
                break
        time.sleep(0.5)
        self.ask("1")  # gathers what has arrived meanwhile
        return [(event["method"], event["params"]) for event in self.events]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def complaints(events, url):
    """What the browser had to say, and what it asked for beyond the page itself."""
    found = []
    for method, said in events:
        if method == "Network.requestWillBeSent":
            asked = said["request"]["url"]
            if asked != url and not asked.startswith("data:"):
                found.append(f"asked for {asked}")
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            found.append(said["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            found.append(f"console: {said['type']}")
        elif method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
            found.append(method)
    return found


@pytest.mark.parametrize("kind", ["plain", "hostile"])
@pytest.mark.parametrize("name", ["fidelity", "privacy"])
def test_a_page_loads_in_silence(browser, kind, name):
    url = pages_of(kind)[name].as_uri()
    assert complaints(browser.load(url), url) == []
    assert browser.ask("document.title") == browser.ask("document.querySelector('h1').textContent")
    pictures = browser.ask("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert pictures and all(complete and width > 100 for complete, width in pictures)
    assert browser.ask("document.styleSheets.length && getComputedStyle(document.body).margin") == (
        "0px"
    )
    assert browser.ask("document.scripts.length") == 0


@pytest.mark.parametrize("name", ["fidelity", "privacy"])
@pytest.mark.parametrize("width", [1200, 700])
def test_nothing_sticks_out_of_a_page(browser, name, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.page("Emulation.setDeviceMetricsOverride", **size)
    browser.load(pages_of("hostile")[name].as_uri())
    assert browser.ask("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    "body",
    [
        '<img src="http://127.0.0.1:9/x.png">',
        '<link rel="stylesheet" href="file:///no-such-file.css">',
        "<script>console.error('x')</script>",
        "<script>throw Error('x')</script>",
        "<meta http-equiv='Content-Security-Policy' content=\"style-src 'none'\"><p style='top:0'>",
    ],
)
def test_the_browser_notices(browser, tmp_path, body):
    """The checks above can fail."""
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><title>x</title>{body}", encoding="utf-8")
    url = (tmp_path / "page.html").as_uri()
    assert complaints(browser.load(url), url)
