"""A headless Chromium that a test drives: pages opened from disk without a network, keys pressed, complaints kept."""

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason=f"no browser to open the page with ({', '.join(PROGRAMS)})")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
LIMIT_S = 120


class Browser:
    """One page of a browser, spoken to through two pipes in the words of the DevTools protocol.

    Attributes
    ----------
    complaints : list of str
        Errors and warnings of the console, exceptions, and requests that failed or went beyond the page itself.
    """

    def __init__(self, profile):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        # It reads descriptor 3 and writes 4; a shell puts our pipes there.
        words = ["bash", "-c", f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}', PROGRAM, *FLAGS]
        words += [f"--user-data-dir={profile}", "about:blank"]
        ends = (to_browser, from_browser)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(words, pass_fds=ends, start_new_session=True, **quiet)
        for end in ends:
            os.close(end)
        os.set_blocking(self._in, False)
        self._numbers, self._buffer, self._events, self._session = count(1), b"", [], None
        self.complaints = []
        (page,) = (t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def close(self):
        """End the browser."""
        with suppress(OSError):
            self._send("Browser.close", {}, session=None)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def call(self, method, **parameters):
        """Ask for something and wait for the answer."""
        number = self._send(method, parameters, self._session)
        return self._wait(lambda message: message.get("id") == number, method)["result"]

    def open(self, file, width=1200, height=900, phone=False, dark=False):
        """Open a page from disk in a window or a telephone of this size."""
        self.complaints.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.scheme(dark)
        self._events.clear()
        self.call("Page.navigate", url=Path(file).resolve().as_uri())
        self._wait(lambda message: message.get("method") == "Page.loadEventFired", "loading", keep=True)

    def scheme(self, dark):
        """Prefer the dark or the light theme."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def run(self, script):
        """Value of an expression on the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key, times=1):
        """Press a key, which the focused element gets."""
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Tab": 9, "Home": 36, "End": 35, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for _ in range(times):
            event = {"key": key, "code": key if key != " " else "Space", "windowsVirtualKeyCode": codes[key]}
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def drag(self, start, end):
        """Drag the pointer from a place of the window to another."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self):
        """What is seen, as a PNG file's bytes."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def printed(self):
        """The page as it is printed: a PDF file's bytes."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def named(self, *roles):
        """Accessible name of each element with one of these roles, as a screen reader is told."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            node.get("name", {}).get("value", "")
            for node in nodes
            if not node.get("ignored") and node.get("role", {}).get("value") in roles
        ]

    def _send(self, method, parameters, session):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return number

    def _wait(self, wanted, what, keep=False):
        """The first message that is `wanted`; others are taken note of."""
        end = time.monotonic() + LIMIT_S
        earlier = next((message for message in self._events if keep and wanted(message)), None)
        while earlier is None:
            assert time.monotonic() < end, f"the browser did not answer: {what}"
            for message in self._messages():
                self._note(message)
                if wanted(message):
                    assert "error" not in message, (what, message["error"])
                    earlier = message
        return earlier

    def _messages(self):
        """Messages that have arrived whole."""
        try:
            chunk = os.read(self._in, 1 << 20)
        except BlockingIOError:
            time.sleep(0.005)
            return []
        assert chunk, "the browser has ended"
        *whole, self._buffer = (self._buffer + chunk).split(b"\0")
        return [json.loads(message) for message in whole]

    def _note(self, message):
        """Keep what the browser complains of."""
        about, method = message.get("params", {}), message.get("method", "")
        if method == "Page.loadEventFired":
            self._events.append(message)
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"])
        elif method == "Network.loadingFailed":
            self.complaints.append(f"not loaded: {about['errorText']}")
        elif method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "data:")):
            self.complaints.append(f"asked for {about['request']['url'][:200]}")
