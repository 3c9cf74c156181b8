"""Headless Chromium driven over a pipe by its own protocol: load, look, click, type, print."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

TIMEOUT_SECONDS = 120

_FITTED = """new Promise((done) => {
  const fits = (plot) => Math.abs(plot._fullLayout.width - plot.clientWidth) < 2;
  const plots = [...document.querySelectorAll(".plot")];
  const look = () => plots.every(fits) ? done() : setTimeout(look, 50);
  requestAnimationFrame(look);
})"""

KEYS = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    " ": 32,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


class Chromium:
    """One tab. ``messages`` has what the console said and what went wrong, ``requests`` every
    address that was asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._numbers = itertools.count(1)
        self._unread = b""
        self._session = ""
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setScrollbarsHidden", hidden=True)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], TIMEOUT_SECONDS)
            assert ready, "the browser does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has gone"
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        event = json.loads(message)
        self._note(event.get("method", ""), event.get("params", {}))
        return event

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled":
            self.messages.append(f"{event['type']}: {event['args']}")
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(event["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(event["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def look(self, width: int, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Set the width in CSS pixels, the reader's colours, and "print" for paper; waits until the
        figures of a page have their new width."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.run(_FITTED)

    def open(self, page: Path, width: int) -> None:
        """Load a file, and wait until its figures are drawn."""
        self.look(width)
        self._loaded = False
        self._call("Page.navigate", url=page.as_uri())
        while not self._loaded:
            self._read()
        self.run("drawn")

    def run(self, expression: str) -> Any:
        """The value of a script, awaited if it is a promise."""
        result = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str, shift: bool = False) -> None:
        """Press and release a key."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        common["code"] = {" ": "Space"}.get(key, key)
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self._call("Input.dispatchKeyEvent", **common, **down)
        self._call("Input.dispatchKeyEvent", **common, type="keyUp")

    def click(self, x: float, y: float) -> None:
        """Move the mouse there and click."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        button = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type="mousePressed", **button)
        self._call("Input.dispatchMouseEvent", type="mouseReleased", **button)

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """PNG of the whole page, or of what is in view."""
        result = self._call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(result["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        """The page as it is printed."""
        result = self._call("Page.printToPDF", preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(result["data"]))
        return path

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self._call("Browser.close")


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """A browser without a network, ended afterwards."""
    browser_reads, to_browser = os.pipe()
    from_browser, browser_writes = os.pipe()

    def pipes() -> None:  # the browser reads from 3 and writes to 4
        ours = os.dup(browser_reads), os.dup(browser_writes)
        os.dup2(ours[0], 3)
        os.dup2(ours[1], 4)

    process = subprocess.Popen(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"),
        ],
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=pipes,
    )
    os.close(browser_reads)
    os.close(browser_writes)
    try:
        browser = Chromium(to_browser, from_browser)
        yield browser
        browser.close()
        process.wait(TIMEOUT_SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
