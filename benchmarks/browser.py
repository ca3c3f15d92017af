"""A headless Chromium, driven over chromedriver's HTTP interface (W3C WebDriver) with the standard library alone."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PATIENCE = 600  # seconds for a command, on a machine that is busy
START = 60  # seconds for a server to start
MISSING = "needs chromium and chromedriver: apt-get install -y chromium chromium-driver"
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
           "--force-color-profile=srgb", "--no-first-run", "--disable-background-networking"]  # fmt: skip


def programs() -> tuple[str, str] | None:
    """Paths of the browser and its driver; None if one is missing."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """A session with one page."""

    def __init__(self, address: str, browser: str) -> None:
        self.address = address
        chrome = {"binary": browser, "args": OPTIONS}
        wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self.call("/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{made['sessionId']}"
        self.call(f"{self.session}/url", {"url": "about:blank"})  # DevTools answer once there is a page

    def call(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """A call of the driver, with the value that it answers."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urlopen(request, timeout=PATIENCE) as answer:
                return json.loads(answer.read())["value"]
        except HTTPError as error:
            raise RuntimeError(json.loads(error.read())["value"]["message"].splitlines()[0]) from error

    def devtools(self, command: str, **settings: Any) -> Any:
        """A command of Chromium's DevTools."""
        return self.call(f"{self.session}/goog/cdp/execute", {"cmd": command, "params": settings})

    def show(self, page: Path | str, width: int = 1200, height: int = 900, *, dark: bool = False) -> None:
        """Open a file or an address, on a screen of so many pixels."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=scheme)
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        address = page.resolve().as_uri() if isinstance(page, Path) else page
        self.call(f"{self.session}/url", {"url": address})

    def run(self, script: str) -> Any:
        """The value that a script returns."""
        return self.call(f"{self.session}/execute/sync", {"script": script, "args": []})

    def messages(self) -> list[str]:
        """What the console has said since the last call: errors and warnings."""
        entries = self.call(f"{self.session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def picture(self, file: Path, element: str | None = None, height: int | None = None) -> None:
        """Write a picture of the page's first pixels, or of an element (a CSS selector) up to a height."""
        clip = {
            "x": 0,
            "y": 0,
            "width": self.run("return innerWidth"),
            "height": height or self.run("return innerHeight"),
        }
        if element is not None:
            script = f"const box = document.querySelector({json.dumps(element)}).getBoundingClientRect(); " \
                "return [box.y + scrollY, box.height]"  # fmt: skip
            top, tall = self.run(script)
            clip |= {"y": max(0, top - 16), "height": min(tall + 32, height or tall + 32)}
        shot = self.devtools(
            "Page.captureScreenshot", format="png", clip=clip | {"scale": 1}, captureBeyondViewport=True
        )
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def serving(
    command: Sequence[str], path: str, ready: Callable[[bytes], bool] = bool, folder: Path | None = None
) -> Iterator[str]:
    """The address of a server that is stopped at the end. It has answered, unless it took longer than `START` seconds.

    Args:
        command: without the option `--port`.
        path: what is asked for.
        ready: whether the answer is that of a server that has started.
        folder: where the command runs; None for the current one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, f"--port={port}"], cwd=folder, **quiet)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + START
    try:
        while time.monotonic() < end:
            with suppress(OSError), urlopen(address + path, timeout=5) as answer:
                if ready(answer.read()):
                    break
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that is closed at the end.

    Raises:
        RuntimeError: a program is missing.
    """
    found = programs()
    if found is None:
        raise RuntimeError(MISSING)
    with serving([found[1]], "/status") as address:
        opened = Browser(address, found[0])
        try:
            yield opened
        finally:
            with suppress(OSError):
                opened.call(opened.session, method="DELETE")
