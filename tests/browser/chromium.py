"""A real Chromium, driven over its debugging pipe (the Chrome DevTools Protocol): no port, no other package."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

_DEADLINE: Final = 60.0
_FLAGS: Final = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-dev-shm-usage",
    "--disable-extensions", "--disable-sync", "--force-color-profile=srgb", "--hide-scrollbars", "--mute-audio",
    "--use-mock-keychain", "--password-store=basic", "--no-sandbox",
)  # fmt: skip
_IN, _OUT = 3, 4
"""The descriptors on which Chromium reads commands and writes answers, each ended by a NUL."""


def chromium() -> str | None:
    """Where the browser is, if anywhere."""
    return next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


class Chromium:
    """One browser with a profile of its own, which goes with it. `events` are what it reported, in order."""

    def __init__(self) -> None:
        program = chromium()
        assert program is not None
        self._profile = tempfile.mkdtemp(prefix="equabot-chromium-")
        to_browser, self._commands = os.pipe()
        self._answers, from_browser = os.pipe()
        shell = f'exec "$0" "$@" {_IN}<&{to_browser} {_OUT}>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, program, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            env=os.environ | {"HOME": self._profile},
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.events: list[dict[str, Any]] = []
        self._replies: dict[int, dict[str, Any]] = {}
        self._number = 0
        self._heard = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        with self._heard:
            arrived = self._heard.wait_for(lambda: number in self._replies or self._ended, _DEADLINE)
            assert arrived, f"{method} is not answered"
            assert number in self._replies, "the browser has ended"
            reply = self._replies.pop(number)
        assert "error" not in reply, f"{method}: {reply['error']}"
        result: dict[str, Any] = reply["result"]
        return result

    def page(
        self, *, width: int = 1280, height: int = 900, media: Mapping[str, str] | None = None, private: bool = False
    ) -> "Page":
        """A new tab. `media` are features such as prefers-color-scheme; `private`: without the cookies and the storage of the
        others."""
        context = {"browserContextId": self.call("Target.createBrowserContext")["browserContextId"]} if private else {}
        target = self.call("Target.createTarget", url="about:blank", **context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, target, session, width=width, height=height, media=media or {})

    def close(self) -> None:
        """Ends it, and takes its profile away."""
        os.close(self._commands)  # which ends the browser
        try:
            self.process.wait(_DEADLINE)
        finally:
            self.process.kill()
            self._thread.join(_DEADLINE)
            shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self) -> None:
        rest = b""
        with os.fdopen(self._answers, "rb", buffering=0) as answers:
            while data := answers.read(1 << 16):
                *messages, rest = (rest + data).split(b"\0")
                with self._heard:
                    for text in messages:
                        message = json.loads(text)
                        if "id" in message:
                            self._replies[message["id"]] = message
                        else:
                            self.events.append(message)
                    self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()


class Page:
    """One tab."""

    def __init__(
        self, browser: Chromium, target: str, session: str, *, width: int, height: int, media: Mapping[str, str]
    ) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.call("Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in media.items()])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command for this tab."""
        return self._browser.call(method, self._session, **params)

    def resize(self, width: int, height: int) -> None:
        """The size of the viewport, in pixels of CSS."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def open(self, url: str) -> None:
        """Goes there."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Returns once the expression is true."""
        deadline = time.monotonic() + _DEADLINE
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.text()}"
            time.sleep(0.02)

    def wait_text(self, selector: str, *words: str) -> None:
        """Returns once the words are in the text of the element."""
        text = f"(document.querySelector({json.dumps(selector)})?.textContent ?? '')"
        self.wait(" && ".join(f"{text}.includes({json.dumps(word)})" for word in words))

    def text(self) -> str:
        """All that is shown."""
        return str(self.evaluate("document.body.innerText"))

    def press(self, key: str) -> None:
        """A key, by its name, down and up."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **more)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A picture, as PNG; `whole`: of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def events(self, method: str) -> list[dict[str, Any]]:
        """What the browser reported of this tab so far."""
        found = tuple(self._browser.events)
        return [event["params"] for event in found if event.get("sessionId") == self._session and event["method"] == method]

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, exceptions of scripts, and violations of the content security policy."""
        entries = [one["entry"] for one in self.events("Log.entryAdded")]
        thrown = [str(one["exceptionDetails"]) for one in self.events("Runtime.exceptionThrown")]
        logged = [str(one["args"]) for one in self.events("Runtime.consoleAPICalled") if one["type"] in ("error", "warning")]
        return [str(entry) for entry in entries if entry["level"] in ("error", "warning")] + thrown + logged

    def requested(self) -> list[str]:
        """The URL of each request."""
        return [one["request"]["url"] for one in self.events("Network.requestWillBeSent")]
