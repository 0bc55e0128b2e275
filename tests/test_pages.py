"""The pages in a real browser: nothing fails or is fetched; all can be seen, printed, reached.

Chromium is driven over its debugging pipe, so no port is opened and no package is needed.
"""

import base64
import fcntl
import json
import os
import re
import shutil
import signal
import time

import pytest
from report_pages import INPUTS, pages_of

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


each_page = pytest.mark.parametrize("name", INPUTS)
each_kind = pytest.mark.parametrize("kind", ["plain", "hostile"])


def shown(browser, url, width=1200, media="", colours="light"):
    """Load a page at a width, on a screen or as in print, light or dark."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.page("Emulation.setDeviceMetricsOverride", **size)
    features = [{"name": "prefers-color-scheme", "value": colours}]
    browser.page("Emulation.setEmulatedMedia", media=media, features=features)
    return browser.load(url)


@each_kind
@each_page
def test_a_page_loads_in_silence(browser, kind, name):
    url = pages_of(kind)[name].as_uri()
    assert complaints(shown(browser, url), url) == []
    assert browser.ask("document.title") == browser.ask("document.querySelector('h1').textContent")
    pictures = browser.ask("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert all(complete and width > 100 for complete, width in pictures)
    assert pictures or name == "release"
    assert browser.ask("document.styleSheets.length && getComputedStyle(document.body).margin") == (
        "0px"
    )
    assert browser.ask("document.scripts.length") == 0


@each_kind
@each_page
@pytest.mark.parametrize("width", [1200, 700, 390])
def test_nothing_sticks_out_of_a_page(browser, kind, name, width):
    shown(browser, pages_of(kind)[name].as_uri(), width)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(OUTSIDE) == []


# Elements that end right of the window and are in no box that scrolls.
OUTSIDE = """[...document.querySelectorAll('body *:not(.skip)')].filter(
    e => !e.closest('.scroll') &&
    e.getBoundingClientRect().right > document.documentElement.clientWidth + 1
).map(e => e.outerHTML)"""

# Texts with less contrast than WCAG 2.1 AA asks for: 4.5, or 3 for large letters.
PALE = """(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = parts(colour).map(v => v / 255).map(
      v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const opaque = colour => (c => c.length < 4 || c[3] === 1)(parts(colour));
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (opaque(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const [a, b] = [light(style.color), light(behind(e))].sort((x, y) => y - x);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) found.push(e.textContent.slice(0, 60));
  }
  return found;
})()"""


@each_page
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(browser, name, colours):
    shown(browser, pages_of("plain")[name].as_uri(), colours=colours)
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (colours == "light")
    assert browser.ask(PALE) == []
    grounds = "[...document.images].map(i => getComputedStyle(i).backgroundColor)"
    assert set(browser.ask(grounds)) <= {"rgb(255, 255, 255)"}  # figures keep their white card


def test_pale_text_is_noticed(browser, tmp_path):
    page = "<!DOCTYPE html><title>x</title><p style='color:#888'>pale</p><p>dark</p>"
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    shown(browser, (tmp_path / "page.html").as_uri())
    assert browser.ask(PALE) == ["pale"]


PAPER = 680  # pixels between the margins of A4


@each_kind
@each_page
def test_a_printed_page_has_no_cut_table(browser, kind, name):
    shown(browser, pages_of(kind)[name].as_uri(), PAPER, "print")
    wide = "[...document.querySelectorAll('table, img')].map(e => e.getBoundingClientRect().right)"
    assert max(browser.ask(wide)) <= PAPER
    cells = (
        "[...document.querySelectorAll('th, td')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    )
    assert browser.ask(f"{cells}.map(e => e.textContent)") == []
    styles = "[...document.querySelectorAll('{}')].map(e => getComputedStyle(e).{})"
    assert set(browser.ask(styles.format("tr", "breakInside"))) == {"avoid"}
    assert set(browser.ask(styles.format("thead", "display"))) == {"table-header-group"}
    assert set(browser.ask(styles.format(".scroll", "overflow"))) == {"visible"}
    rows = "[...document.querySelectorAll('tr, figure')].map(e => e.getBoundingClientRect().height)"
    assert max(browser.ask(rows)) < 1_000  # what may not break fits on one sheet
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("paper", [(8.27, 11.69), (8.5, 11)], ids=["A4", "Letter"])
def test_the_first_page_fits_on_two_sheets(browser, paper):
    shown(browser, pages_of("plain")["release"].as_uri())
    size = dict(zip(("paperWidth", "paperHeight"), paper, strict=True))
    printed = browser.page("Page.printToPDF", **size, printBackground=True)["data"]
    assert len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed))) == 2


@each_page
def test_everything_is_reached_by_keyboard(browser, name):
    shown(browser, pages_of("plain")[name].as_uri())
    stops = "[...document.querySelectorAll('a[href], [tabindex=\"0\"]')]"
    expected = browser.ask(f"{stops}.map(e => e.href || e.getAttribute('aria-label'))")
    seen = []
    for _ in expected:
        for kind in ("rawKeyDown", "keyUp"):
            browser.page("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
        seen.append(
            browser.ask(
                "(e => [e.href || e.getAttribute('aria-label'), getComputedStyle(e).outlineStyle])"
                "(document.activeElement)"
            )
        )
    assert [name for name, _ in seen] == expected
    assert "none" not in {outline for _, outline in seen}
    assert seen[0][0].endswith("#main")
    assert [link.split("/")[-1] for link, _ in seen[1:5]] == [f"{page}.html" for page in INPUTS]
    assert sum(browser.ask("[...document.querySelectorAll('.scroll')].map(e => e.tabIndex)")) == 0


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
