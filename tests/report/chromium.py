"""A real browser for tests: Chromium without a window, driven over its DevTools pipe."""

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

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    PROGRAM is None, reason="no chromium or chromium-browser on the path"
)


class Page:
    """One page; what it logs or throws is collected in ``errors``."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, os.fdopen(read, "rb", buffering=0)
        self._buffer = b""
        self._number = itertools.count(1)
        self.errors: list[str] = []
        self._loads = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """The result of a DevTools method."""
        number = next(self._number)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], 60)[0], "the browser says nothing more"
            part = self._read.read(1 << 20)
            assert part, "the browser is gone"
            self._buffer += part
        text, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(text)
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        elif message.get("method") == "Page.loadEventFired":
            self._loads += 1
        elif message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] == "error":
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")
        return message

    def run(self, script: str) -> Any:
        """The value of an expression on the page, a promise's once it is kept."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Wait, within the page, until the expression is true, 20 seconds at most."""
        return self.run(
            "new Promise((kept, broken) => { const start = performance.now(); (function look() {"
            f" const value = ({condition}); if (value) kept(value);"
            " else if (performance.now() - start > 20000) broken(new Error('in vain'));"
            " else requestAnimationFrame(look); })(); })"
        )

    def open(self, address: str) -> None:
        """Go to an address and wait until the page has loaded."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.protocol !== 'about:'")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """An event of the mouse: mousePressed, mouseReleased, mouseMoved, mouseWheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of an element is, once the page is scrolled to it."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'nearest'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return x, y

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element."""
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def follow(self, selector: str) -> None:
        """Click on a link and wait until another page has loaded."""
        loads = self._loads
        self.click(selector)
        while self._loads == loads:
            self._next()

    def drag(self, selector: str, by: tuple[float, float], modifiers: int = 0) -> None:
        """Drag from the middle of an element."""
        x, y = self.middle(selector)
        held: dict[str, Any] = {"button": "left", "buttons": 1, "modifiers": modifiers}
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, clickCount=1, **held)
        self.mouse("mouseMoved", x + by[0], y + by[1], **held)
        self.mouse("mouseReleased", x + by[0], y + by[1], clickCount=1, **held)

    def key(self, name: str) -> None:
        """Press and release a key, named as KeyboardEvent.key."""
        text = {"text": name} if len(name) == 1 else {"text": "\r"} if name == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a select, as a person's choice tells the page."""
        self.run(
            f"(() => {{ const s = document.querySelector({json.dumps(selector)});"
            f" s.value = {json.dumps(value)};"
            " s.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def picture(self, path: Path) -> Path:
        """Write what the window shows as PNG."""
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def appear(self, scheme: str, width: int = 1280, height: int = 800) -> None:
        """Prefer light or dark, in a window of this size."""
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start Chromium with its files in ``profile``; it ends with the block."""
    assert PROGRAM is not None
    theirs_read, write = os.pipe()
    read, theirs_write = os.pipe()
    words = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-extensions", "--hide-scrollbars"),
        *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
    )
    # It reads its orders from file 3 and answers on 4.
    shell = f'exec "$0" "$@" 3<&{theirs_read} 4>&{theirs_write}'
    process = subprocess.Popen(
        ["bash", "-c", shell, PROGRAM, *words],
        pass_fds=(theirs_read, theirs_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_read)
    os.close(theirs_write)
    try:
        yield Page(write, read)
    finally:
        os.close(write)  # it ends when the pipe does
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
