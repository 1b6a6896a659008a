"""The report of the study in a real browser: no error, nothing fetched, figures that are drawn.

Chromium is driven through its DevTools protocol over a pipe, which tells of every script error and
of every request, and lets the tests point, drag and take pictures. Run with
``python -m pytest -m browser``. A report that exists already is looked at instead of a new one when
``SKDMAP_REPORT`` names its folder; the picture of the whole page is left beside it.
"""

import base64
import io
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

fcntl = pytest.importorskip("fcntl", reason="pipes at given descriptors need POSIX")
pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "examples" / "study" / "study.py"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Whatever asks for a host gets no answer, so that a broken report cannot reach out.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    # Three dimensions are drawn in software.
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--window-size=1200,900",
    "--remote-debugging-pipe",
)
# Seconds after which the browser counts as hung; no measure of speed.
PATIENCE = 120.0
LOCAL = ("file:", "data:", "blob:", "about:")


class Page:
    """A page in Chromium: what it complained of, what it asked for, and a pointer."""

    def __init__(self, profile):
        # Chromium reads commands from descriptor 3 and writes to 4; ours must lie above these.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in self._pipes()]
        theirs_in, self._commands, self._answers, theirs_out = ends
        self._process = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
            ],
            setpgroup=0,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers, self._buffer, self._session = itertools.count(1), b"", None
        self.errors, self.requests, self._loaded = [], [], False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    @staticmethod
    def _pipes():
        """Yield the four ends of two pipes, each closed once it was taken over."""
        for end in itertools.chain(os.pipe(), os.pipe()):
            yield end
            os.close(end)

    def call(self, method, **parameters):
        """Send a command, return its result; note what happens in between."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next_message()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]
            self._note(answer)

    def _next_message(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE)
            assert ready, f"Chromium said nothing for {PATIENCE:.0f} seconds"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "Chromium ended by itself"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(details.get("exception", details).get("description", str(details)))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(str([a.get("value", a.get("description")) for a in told["args"]]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def open(self, path):
        """Show a file, and wait until it is loaded and two more frames are drawn."""
        self.errors, self.requests, self._loaded = [], [], False
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._note(self._next_message())
        self.settle()

    def settle(self):
        """Wait for two frames, so that what was asked for is drawn."""
        self.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))")

    def run(self, script):
        """Evaluate an expression, wait for it if it is a promise, and return its value."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, box=None):
        """Return the PNG of the whole page, or of [x, y, width, height] of it."""
        if box is None:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            box = [0, 0, size["width"], size["height"]]
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True), scale=1)
        taken = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def mouse(self, kind, x, y, **more):
        """Move, press, release or turn the wheel at a place of the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
        self.settle()

    def close(self):
        """End the browser and its helpers, and wait for it."""
        for end in (self._commands, self._answers):
            os.close(end)
        # It ends itself when the pipe closes; what does not is killed.
        for _ in range(100):
            if os.waitpid(self._process, os.WNOHANG)[0]:
                return
            time.sleep(0.1)
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)


def drawn_pixels(png):
    """Return a picture as (rows, columns, 3), values 0 to 255."""
    import matplotlib.image

    pixels = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]
    return (255 * pixels).round().astype(int)


# What a section holds: of each figure its box, traces and canvases; of each picture its width.
SURVEY = """
[...document.querySelectorAll('.plotly-graph-div')].map(gd => {
    const box = gd.getBoundingClientRect();
    const svg = gd.querySelector('.main-svg');
    return {
        section: gd.closest('section').id,
        box: [box.x + scrollX, box.y + scrollY, box.width, box.height],
        svg: svg ? svg.getBoundingClientRect().width : 0,
        kinds: (gd._fullData || []).map(trace => trace.type),
        points: (gd._fullData || []).map(trace => trace.x.length),
        title: gd._fullLayout ? gd._fullLayout.title.text : '',
        still: gd.closest('.live').nextElementSibling.querySelector('img').naturalWidth
    };
})
"""
PICTURES = "[...document.querySelectorAll('img')].map(img => img.complete ? img.naturalWidth : 0)"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium found; on Debian: apt-get install chromium")
    page = Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the report of a quick study, or of the one that SKDMAP_REPORT names."""
    if "SKDMAP_REPORT" in os.environ:
        return Path(os.environ["SKDMAP_REPORT"]).resolve() / "report.html"
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("study")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(STUDY), "--quick", "--out", str(folder)],
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "report.html"


@pytest.fixture
def opened(page, report):
    page.open(report)
    return page


def outside(requests):
    return [url for url in requests if not url.startswith(LOCAL)]


def undrawn(page):
    """Return the sections of the live figures that are not there for the eye."""
    figures = page.run(SURVEY)
    return [
        figure["section"]
        for figure in figures
        if figure["svg"] == 0
        or sum(figure["points"]) == 0
        or len(np.unique(drawn_pixels(page.picture(figure["box"])).reshape(-1, 3), axis=0)) < 50
    ]


def test_no_error_on_the_console_and_nothing_fetched(opened, report):
    assert opened.errors == []
    assert opened.requests, "the page itself was asked for, or this test sees nothing"
    assert outside(opened.requests) == []
    assert opened.run("document.querySelectorAll('section').length") >= 8


def test_each_live_figure_is_drawn_and_has_a_still_picture_beside_it(opened, report):
    figures = opened.run(SURVEY)
    assert len(figures) == report.read_text(encoding="utf-8").count('class="plotly-graph-div"')
    kinds = {figure["section"]: set(figure["kinds"]) for figure in figures}
    assert {"R1", "R4"} <= kinds.keys(), "spectra and embeddings can be turned or pointed at"
    assert kinds["R4"] == {"scatter3d"}
    assert undrawn(opened) == []
    assert all(figure["still"] > 300 for figure in figures)
    assert all(width > 300 for width in opened.run(PICTURES))


def test_the_pointer_tells_the_loss_of_a_spectrum(opened):
    box = opened.run(
        """(() => {
            const point = document.querySelector('#R1 .scatterlayer .point');
            point.scrollIntoView({block: 'center'});
            const box = point.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        })()"""
    )
    opened.mouse("mouseMoved", box[0] - 5, box[1])
    opened.mouse("mouseMoved", *box)
    told = opened.run(
        """new Promise(r => setTimeout(() => r(
            document.querySelector('#R1 .hoverlayer').textContent), 300))"""
    )
    assert "step" in told
    assert "loss" in told


def test_an_embedding_can_be_turned_and_zoomed(opened):
    x, y = opened.run(
        """(() => {
            const scene = document.querySelector('#R4 .plotly-graph-div');
            scene.scrollIntoView({block: 'center'});
            const box = scene.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        })()"""
    )
    camera = """(() => {
        const gd = document.querySelector('#R4 .plotly-graph-div');
        const eye = gd._fullLayout.scene._scene.getCamera().eye;
        return [eye.x, eye.y, eye.z];
    })()"""
    before = np.array(opened.run(camera))
    opened.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
    for step in range(1, 6):
        opened.mouse("mouseMoved", x + 20 * step, y, button="left", buttons=1)
    opened.mouse("mouseReleased", x + 100, y, button="left", clickCount=1)
    turned = np.array(opened.run(camera))
    assert np.linalg.norm(turned - before) > 0.1
    opened.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    zoomed = np.array(opened.run(camera))
    assert np.linalg.norm(zoomed) < 0.99 * np.linalg.norm(turned)


def test_the_whole_page_leaves_a_picture(opened, report):
    png = opened.picture()
    (report.parent / "browser.png").write_bytes(png)
    pixels = drawn_pixels(png)
    assert pixels.shape[0] > 4000
    # Text, curves and colour bars: neither blank nor one figure alone.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500
    written = (pixels.min(axis=2) < 128).reshape(-1)
    assert 0.005 < written.mean() < 0.5


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("</body>", "<script>noSuchName();</script></body>", "errors"),
        ("</body>", "<script>console.error('no');</script></body>", "errors"),
        ("</body>", "<img src='https://example.invalid/a.png'></body>", "requests"),
        ("Plotly.newPlot(", "void (", "figures"),
    ],
)
def test_a_broken_report_is_found_out(page, report, tmp_path, old, new, seen):
    text = report.read_text(encoding="utf-8")
    # The library itself, in the head, names the same function.
    head, _, body = text.rpartition("<body>")
    assert old in body
    copy = tmp_path / "broken.html"
    copy.write_text(head + "<body>" + body.replace(old, new), encoding="utf-8")
    page.open(copy)
    found = {
        "errors": page.errors,
        "requests": outside(page.requests),
        "figures": undrawn(page),
    }
    assert found[seen]
