"""The page of `equabot dashboard` in a real browser, next to a real broker."""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import Chromium, Page
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker
from tests.tiers import require

CONFIG = """
audit: {{path: {home}/audit.jsonl}}
agents:
  main: {{max_leases: 20}}
  worker: {{}}
profiles:
  openai:trial: {{from: {{dotenv: TRIAL}}, expires_at: {end}}}
"""
DOTENV = f"ANTHROPIC_API_KEY={KEY}\nTRIAL=sk-proj-{'trialkey' * 6}\n"


def configured(broker: RunningBroker, *, ends_in: timedelta) -> None:
    """Writes the configuration of the broker."""
    end = (datetime.now(UTC) + ends_in).strftime("%Y-%m-%dT%H:%M:%SZ")
    (broker.home / "equabot.yaml").write_text(CONFIG.format(home=broker.home, end=end))


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    require("browser")
    with Chromium() as started:
        yield started


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    require("browser")
    made = RunningBroker(credentials={}, dotenv=DOTENV, config="")
    configured(made, ends_in=timedelta(days=300))
    yield made
    made.close()


class Dashboard:
    """`equabot dashboard` as a process, which ends with the test."""

    def __init__(self, broker: RunningBroker) -> None:
        self.process = broker.spawn("dashboard", "--no-browser")
        assert self.process.stdout is not None
        self.link = self.process.stdout.readline().split()[-1]
        self.address = urlsplit(self.link).netloc

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        output = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, output


@pytest.fixture
def dashboard(broker: RunningBroker) -> Iterator[Dashboard]:
    started = Dashboard(broker)
    yield started
    started.close()


def live(page: Page, link: str) -> None:
    """Opens the link; returns once the page shows the broker."""
    page.open(link)
    page.wait_text("#status", "Live")
    page.wait_text("#credentials", "anthropic:dotenv")


def clean(page: Page, dashboard: Dashboard) -> None:
    """Nothing was complained of, and nothing was asked of another host."""
    assert page.complaints() == []
    assert {urlsplit(url).netloc for url in page.requested()} == {dashboard.address}


def test_what_happens_is_seen_without_a_reload(broker: RunningBroker, dashboard: Dashboard, browser: Chromium) -> None:
    """A rotation, a lease and its revocation, an expiry, a suspension; and in the audit log."""
    broker.start()
    page = browser.page()
    live(page, dashboard.link)
    page.evaluate("window.same = true")
    assert page.evaluate("location.href") == f"http://{dashboard.address}/", "the token has left the address"
    page.wait_text("#audit-verdict", "Whole: the chain of")

    row = "#credentials [data-id='anthropic:dotenv']"
    before = page.evaluate(f'document.querySelector("{row}").dataset.version')
    broker.write_dotenv(DOTENV.replace(KEY, OTHER_KEY))
    page.wait_text("#changes-body", "anthropic:dotenv was rotated")
    page.wait(f'document.querySelector("{row}").dataset.version !== {json.dumps(before)}')
    assert page.evaluate(f'document.querySelector("{row}").classList.contains("fresh")')

    with broker.connect() as main:
        lease = main.acquire("anthropic")
        page.wait_text("#agents-body [data-agent=main]", "1 of 20", "Show 1 lease")
        assert broker.run("lease", "revoke", lease.id).returncode == 0
        page.wait_text("#agents-body [data-agent=main]", "0 of 20")
        page.wait_text("#changes-body", "1 lease of anthropic:dotenv ended")

    configured(broker, ends_in=timedelta(seconds=2))
    assert broker.run("reload").returncode == 0
    page.wait_text("#credentials [data-id='openai:trial']", "expired", "ended ")
    assert page.evaluate("document.querySelector('#credential-list li').dataset.id") == "openai:trial", "the worst is first"

    reason = "<img src=x onerror='alert(1)'><script>alert(2)</script>"
    assert broker.run("agent", "suspend", "worker", "--reason", reason).returncode == 0
    page.wait_text("#agents-body [data-agent=worker]", "suspended", reason)
    assert page.evaluate("document.images.length + document.scripts.length") == 1, "the script of the page"
    page.wait_text("#audit-body", "agent_suspended", "rotated", "revoked")

    assert page.evaluate("window.same")
    clean(page, dashboard)


def test_the_page_outlives_the_broker(broker: RunningBroker, dashboard: Dashboard, browser: Chromium) -> None:
    """It says that there is none, shows one that starts, keeps what it said last, and goes on with the next."""
    page = browser.page()
    page.open(dashboard.link)
    page.wait_text("#status", "No broker")
    page.wait_text("#banner", "No broker answers at unix:", "`equabot serve`")
    broker.start()
    page.wait_text("#status", "Live")
    page.wait("document.getElementById('banner').hidden")
    broker.kill()
    page.wait_text("#banner", "The broker stopped answering")
    page.wait_text("#credentials", "anthropic:dotenv")
    broker.start()
    page.wait_text("#status", "Live")
    page.wait_text("#changes-body", "broker answers again")
    clean(page, dashboard)


def test_the_link_works_once_and_in_one_browser(broker: RunningBroker, dashboard: Dashboard, browser: Chromium) -> None:
    """Another tab of that browser needs no link."""
    broker.start()
    live(browser.page(), dashboard.link)
    live(browser.page(), f"http://{dashboard.address}/")
    other = browser.page(private=True)
    for link in (dashboard.link, f"http://{dashboard.address}/"):
        other.open(link)
        other.wait_text("#status", "Locked")
        assert "anthropic" not in other.text()


class Stranger(BaseHTTPRequestHandler):
    """Another user's server on the same address: it gets the browser's cookies."""

    cookies: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.cookies.append(self.headers.get("Cookie", ""))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>stranger</title>")

    def log_message(self, *args: object) -> None:
        """Not to the tests' output."""


def test_a_page_of_the_same_host_reads_nothing(broker: RunningBroker, dashboard: Dashboard, browser: Chromium) -> None:
    """Cookies have no port, so the stranger has the session's. It is not enough: neither from its page nor by itself."""
    broker.start()
    live(browser.page(), dashboard.link)
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = browser.page()
        page.open(f"http://127.0.0.1:{server.server_port}/")
        page.wait("document.title === 'stranger'")
        for path, options in (
            ("/events", "{credentials: 'include'}"),
            ("/events", "{credentials: 'include', headers: {'Equabot-Page-Key': 'x'}}"),
            ("/", "{}"),
        ):
            asked = f"fetch('http://{dashboard.address}{path}', {options}).then((answer) => answer.text()).catch(String)"
            assert page.evaluate(asked) == "TypeError: Failed to fetch"
        opaque = f"fetch('http://{dashboard.address}/events', {{mode: 'no-cors', credentials: 'include'}}).then((a) => a.type)"
        assert page.evaluate(f"{opaque}.catch(String)") in ("opaque", "TypeError: Failed to fetch")
        framed = "new Promise((done) => { const f = document.createElement('iframe'); f.onload = () => done(f.contentDocument);"
        assert page.evaluate(f"{framed} f.src = 'http://{dashboard.address}/'; document.body.append(f); }})") is None
        server.shutdown()
    cookie = next(cookie for cookie in Stranger.cookies if "equabot-dashboard" in cookie)
    alone = subprocess.run(
        [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            f"Cookie: {cookie}",
            f"http://{dashboard.address}/events",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert alone.stdout == "401"


def test_nothing_overflows(broker: RunningBroker, dashboard: Dashboard, browser: Chromium) -> None:
    """At the widths of telephones and tablets, with names that do not fit."""
    broker.start()
    page = browser.page()
    live(page, dashboard.link)
    with broker.connect() as main:
        main.acquire("anthropic", session="a-session-with-a-name-that-is-much-too-long-for-a-telephone" * 2)
        page.wait_text("#agents-body", "Show 1 lease")
        page.evaluate("document.querySelector('#agents-body details').open = true")
        page.wait("document.querySelectorAll('#traffic-body svg').length === 3")
        outside = "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
        for width in (320, 360, 412, 768, 1024):
            page.resize(width, 700)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            assert page.evaluate(f"{outside}.map((e) => e.outerHTML.slice(0, 200))") == [], width


FOCUSED = "(() => { const e = document.activeElement; return e.id || e.className || e.tagName; })()"


def test_the_keyboard_reaches_everything(broker: RunningBroker, dashboard: Dashboard, browser: Chromium) -> None:
    """In the order of the page, with a visible focus; and what is open and focused stays so when the page changes."""
    broker.start()
    page = browser.page()
    live(page, dashboard.link)
    with broker.connect() as main:
        main.acquire("anthropic")
        page.wait_text("#agents-body", "Show 1 lease")
        reached = []
        for _ in range(6):
            page.press("Tab")
            reached.append(page.evaluate(FOCUSED))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert reached == ["skip", "agents-body", "SUMMARY", "changes-body", "findings-body", "audit-body"]
        page.evaluate("document.querySelector('summary').focus()")
        page.press("Enter")
        page.wait("document.querySelector('#agents-body details').open")
        main.acquire("anthropic")
        page.wait_text("#agents-body", "Show 2 leases")
        assert page.evaluate("document.querySelector('#agents-body details').open")
        assert page.evaluate(FOCUSED) == "SUMMARY"


def test_reduced_motion_moves_nothing(broker: RunningBroker, dashboard: Dashboard, browser: Chromium) -> None:
    broker.start()
    page = browser.page(media={"prefers-reduced-motion": "reduce"})
    live(page, dashboard.link)
    broker.write_dotenv(DOTENV.replace(KEY, OTHER_KEY))
    page.wait_text("#changes-body", "anthropic:dotenv was rotated")
    assert page.evaluate("document.getAnimations().length") == 0
    moving = "[...document.querySelectorAll('*')].filter((e) => parseFloat(getComputedStyle(e).transitionDuration) > 0)"
    assert page.evaluate(f"{moving}.length") == 0


def test_every_text_has_contrast(broker: RunningBroker, dashboard: Dashboard, browser: Chromium) -> None:
    """WCAG AA: 4.5 to 1, in both schemes, of each text on the first opaque background behind it."""
    broker.start()
    page = browser.page()
    live(page, dashboard.link)
    page.wait("document.querySelectorAll('#traffic-body svg').length === 3")
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        assert page.evaluate(_FAINT) == []


_FAINT = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')]
    .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((e) => !['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(e.tagName))
    .map((e) => {
      const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
      return [Number(((a + 0.05) / (b + 0.05)).toFixed(2)), e.textContent.slice(0, 40), e.className];
    })
    .filter(([ratio]) => ratio < 4.5);
})()"""
