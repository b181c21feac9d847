"""A headless Chromium for the tests of pages, and axe-core in it."""

import base64
import contextlib
import hashlib
import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BROWSER_START_S = 30
AXE = "axe-core-4.14.1.tgz"  # `npm pack axe-core@4.14.1 --pack-destination .cache`, as .ci/run does
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
FINDINGS = """axe.run().then(found => found.violations.map(rule => [rule.impact, rule.id, rule.nodes[0].html]))"""


class Browser:
    """A headless Chromium that cannot reach any host, spoken to through its DevTools."""

    def __init__(self, address):
        import websocket

        self.socket = websocket.create_connection(address, timeout=BROWSER_START_S, suppress_origin=True)
        self.n_sent, self.requested, self.session = 0, [], {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self.call("Network.enable")

    def call(self, method, **parameters):
        self.n_sent += 1
        self.socket.send(json.dumps({"id": self.n_sent, "method": method, "params": parameters, **self.session}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.n_sent:
            if answer["method"] == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
        assert "result" in answer, answer
        return answer["result"]

    def value(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, path, *, width_px, media="screen", scheme="light"):
        size = {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": width_px < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Emulation.setScrollbarsHidden", hidden=media == "print")
        self.call("Page.navigate", url=path.as_uri())
        while self.value("document.readyState + location.protocol") != "completefile:":
            time.sleep(0.02)

    def unfold(self):
        self.value("document.querySelectorAll('details').forEach(box => { box.open = true })")

    def picture(self):
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def findings(self):
        """What axe-core finds in the page that is open: impact, rule and the first element of each finding."""
        self.value(axe() + "; 0")
        return self.value(FINDINGS)


@contextlib.contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser with its profile in a folder; the test is skipped where there is none."""
    pytest.importorskip("websocket", reason="websocket-client drives Chromium")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
    flags += [f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "about:blank"]
    process = subprocess.Popen([CHROMIUM, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Browser(devtools_address(profile / "DevToolsActivePort"))
    finally:
        process.terminate()
        process.wait()


def devtools_address(file):
    """Where Chromium listens: it writes the port and the path of its socket into a file of its profile."""
    end = time.monotonic() + BROWSER_START_S
    while not file.is_file() or len(file.read_text(encoding="utf-8").splitlines()) < 2:
        assert time.monotonic() < end, "Chromium did not start"
        time.sleep(0.05)
    port, path = file.read_text(encoding="utf-8").splitlines()
    return f"ws://127.0.0.1:{port}{path}"


def axe() -> str:
    """The script of axe-core, whose archive must be the one that is pinned; skipped where there is none."""
    archive = Path(__file__).parents[1] / ".cache" / AXE
    if not archive.is_file():
        pytest.skip(f"axe-core is not there: npm pack {AXE[:-4].replace('core-', 'core@')} --pack-destination .cache")
    assert base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() == AXE_SHA512
    with tarfile.open(archive) as members:
        return members.extractfile("package/axe.min.js").read().decode()
