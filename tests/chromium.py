"""Chromium, driven through its own debugging protocol: a page is opened, looked at, measured and photographed."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Log", "Runtime", "Network", "Accessibility"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while (answer := self._next()).get("id") != self._last:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        return json.loads(self._socket.recv(timeout=30))

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self.events.clear()
        self.ask("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.run("document.fonts.ready")

    def look(self, width: int, height: int = 900, *, dark: bool = False, media: str = "screen") -> None:
        phone = width < 500
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def run(self, script: str) -> Any:
        """An expression's value; the protocol runs it beside the page, whatever the page's policy is."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key that moves or chooses: Tab, Enter."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path) -> bytes:
        """The whole page as PNG."""
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        image = base64.b64decode(data)
        path.write_bytes(image)
        return image

    def pdf(self) -> bytes:
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=False)["data"])

    def complaints(self) -> list[str]:
        """What the console says: errors of the page, of the network, of the policy."""
        said = [event["params"]["entry"]["text"] for event in self.events if event.get("method") == "Log.entryAdded"]
        said += [
            str(e["params"])
            for e in self.events
            if e.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        ]
        return said

    def requests(self) -> list[str]:
        """Every address that was asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def dialogs(self) -> int:
        return sum(event.get("method") == "Page.javascriptDialogOpening" for event in self.events)

    def accessibility(self) -> list[tuple[str, str]]:
        """Role and name of everything that a screen reader meets, in order."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]


@contextmanager
def browser() -> Iterator[Page]:
    """A fresh Chromium that shows nothing on any screen, and its tab."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        options = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run",
                   "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
                   "--disable-component-update", "--hide-scrollbars"]  # fmt: skip
        if os.geteuid() == 0:  # Chromium's sandbox does not run as root
            options.append("--no-sandbox")
        with subprocess.Popen([PROGRAM, *options, "about:blank"], stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                found = next(filter(None, (re.search(r"ws://[^/]+:(\d+)/\S+", line) for line in process.stderr)), None)
                assert found is not None, "Chromium did not start"
                with connect(_tab(found.group()), max_size=None, proxy=None) as socket:
                    yield Page(socket)
            finally:
                process.terminate()
                process.stderr and process.stderr.read()
                process.wait(20)


def _tab(address: str) -> str:
    """The address of the browser's first tab."""
    with connect(address, proxy=None) as socket:
        socket.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
        targets = json.loads(socket.recv(timeout=30))["result"]["targetInfos"]
    target = next(target["targetId"] for target in targets if target["type"] == "page")
    return f"{address.split('/devtools/', maxsplit=1)[0]}/devtools/page/{target}"
