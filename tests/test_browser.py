"""The page of `examples/browser` in headless Chromium: every golden spike, and drawn digits that it recognises."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cos_export as ce
from cos_export import zoo
from cos_export.bundle import Bundle
from targets.results import RecordedResults

EXAMPLE = Path(__file__).parents[1] / "examples" / "browser"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SECONDS = 90

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(
        not (EXAMPLE / "node_modules" / "onnxruntime-web").is_dir(),
        reason="onnxruntime-web is not installed: npm install in examples/browser",
    ),
]

CHECK = """<!doctype html><meta charset="utf-8"><iframe id="page" width="1100" height="900"></iframe>
<script type="module" src="check.js"></script>"""

PROGRAM = """
import { Network } from "./network.js";
const post = (name, body) => fetch("/" + name, { method: "POST", body });
const strokes = await (await fetch("/strokes.json")).json();

async function golden() {
  const images = new Float32Array(await (await fetch("/golden.bin")).arrayBuffer());
  const found = await (await Network.load("model/model.onnx")).run(images, [1, 8, 8]);
  const shapes = { logits: [found.steps, images.length / 64, found.classes] };
  await post("logits", found.logits);
  for (const [layer, { shape, data }] of found.spikes) {
    shapes[`spikes/${layer}`] = shape;
    await post(`spikes/${layer}`, data);
  }
  return shapes;
}

const pause = () => new Promise((done) => setTimeout(done, 20));

async function drawn() {
  const frame = document.getElementById("page");
  const loaded = new Promise((done) => frame.addEventListener("load", done));
  frame.src = "index.html";
  await loaded;
  const [inner, page] = [frame.contentWindow, frame.contentDocument];
  while (page.body.dataset.state !== "ready") {
    if (page.body.dataset.state === "failed") throw new Error(page.getElementById("failure").textContent);
    await pause();
  }
  const canvas = page.getElementById("drawing");
  const [box, answers] = [canvas.getBoundingClientRect(), {}];
  const send = (kind, [x, y]) => canvas.dispatchEvent(new inner.PointerEvent(kind, {
    clientX: box.left + x * box.width, clientY: box.top + y * box.height, pointerId: 1, bubbles: true,
  }));
  for (const [digit, lines] of Object.entries(strokes)) {
    page.getElementById("clear").click();
    for (const [first, ...rest] of lines) {
      send("pointerdown", first);
      rest.forEach((place) => send("pointermove", place));
      send("pointerup", rest.at(-1));
    }
    do { await pause(); } while (page.body.dataset.state !== "ready");
    answers[digit] = [page.getElementById("digit").textContent, page.getElementById("total").textContent,
      page.querySelectorAll("#spikes canvas").length];
  }
  return answers;
}

try {
  const said = { shapes: await golden(), drawn: await drawn() };
  await post("done", JSON.stringify(said));
} catch (error) {
  await post("done", JSON.stringify({ error: `${error.message} ${error.stack}` }));
}
"""


def circle(x: float, y: float, width: float, height: float, begin: float = 0, end: float = 1) -> list[list[float]]:
    turns = 2 * np.pi * np.linspace(begin, end, 30)
    points: list[list[float]] = np.stack([x + width * np.sin(turns), y - height * np.cos(turns)], 1).tolist()
    return points


STROKES = {
    "0": [circle(0.5, 0.5, 0.2, 0.35)],
    "1": [[[0.42, 0.25], [0.52, 0.12], [0.52, 0.9]]],
    "2": [[*circle(0.5, 0.32, 0.2, 0.2, -0.2, 0.35), [0.3, 0.88], [0.75, 0.88]]],
    "3": [[*circle(0.48, 0.3, 0.2, 0.18, -0.15, 0.5), *circle(0.48, 0.68, 0.22, 0.2, 0, 0.65)]],
    "4": [[[0.5, 0.1], [0.3, 0.55], [0.72, 0.55]], [[0.58, 0.35], [0.55, 0.9]]],
    "7": [[[0.28, 0.14], [0.72, 0.14], [0.45, 0.9]]],
}
"""Digits as lines through points, from 0 to 1 across the canvas."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    train, test = ce.load_dataset("digits", "train"), ce.load_dataset("digits", "test")
    model = zoo.build("digits")
    zoo.load_weights(model, zoo.weights_path("digits"))
    network = ce.quantise(ce.capture(model, test.images[:1]), train.images[:64], steps=4)
    return ce.export(network, tmp_path_factory.mktemp("bundles") / "digits", 4, golden=test.images[:16])


class Server(ThreadingHTTPServer):
    """The example's folder, the bundle as its model, what the check adds, and what the check sends back."""

    daemon_threads = True

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bundle = bundle
        self.own = {
            "/check.html": (CHECK.encode(), "text/html"),
            "/check.js": (PROGRAM.encode(), "text/javascript"),
            "/strokes.json": (json.dumps(STROKES).encode(), "application/json"),
            "/golden.bin": (bundle.golden.images.astype("<f4").tobytes(), "application/octet-stream"),
        }
        self.posted: dict[str, bytes] = {}
        self.done = threading.Event()


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=str(EXAMPLE))

    def translate_path(self, path: str) -> str:
        model = "/model/model.onnx"
        return str(self.server.bundle.onnx_path) if path == model else super().translate_path(path)

    def end_headers(self) -> None:
        # Nothing is taken from another host, whatever a script asks for.
        rules = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' data:"
        self.send_header("Content-Security-Policy", f"{rules}; style-src 'self' 'unsafe-inline'")
        super().end_headers()

    def do_GET(self) -> None:
        if self.path not in self.server.own:
            return super().do_GET()
        content, kind = self.server.own[self.path]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.server.posted[self.path[1:]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        if self.path == "/done":
            self.server.done.set()

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@contextmanager
def chromium(url: str, profile: Path) -> Iterator[None]:
    """A browser at that address, which is ended with all of its processes."""
    options = ["--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    options += [f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    options += ["--no-sandbox"] * (os.geteuid() == 0)  # it refuses to be root with one
    process = subprocess.Popen(
        [str(CHROMIUM), *options, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def answer(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser sends back: the arrays by name, and the classes of what was drawn."""
    with Server(bundle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with chromium(f"http://127.0.0.1:{server.server_port}/check.html", tmp_path_factory.mktemp("profile")):
            ended = server.done.wait(SECONDS)
        server.shutdown()
    assert ended, f"the browser said nothing within {SECONDS} s; it sent {sorted(server.posted)}"
    said = json.loads(server.posted["done"])
    assert "error" not in said, said["error"]
    arrays = {
        name: np.frombuffer(server.posted[name], "<f4" if name == "logits" else np.uint8).reshape(shape)
        for name, shape in said["shapes"].items()
    }
    return {"arrays": arrays, "drawn": said["drawn"]}


def test_the_browser_fires_every_golden_spike(answer: dict[str, Any], bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "results.npz", **answer["arrays"])
    parity = ce.verify(bundle, [RecordedResults(tmp_path / "results.npz", bundle)])["results"]
    assert parity.comparison.compared == 4 * 16 * 6400
    assert parity.passed and parity.mismatches == 0 and parity.comparison.logit_difference == 0


def test_the_page_recognises_what_is_drawn_and_shows_its_spikes(answer: dict[str, Any]) -> None:
    assert {digit: said for digit, (said, _, _) in answer["drawn"].items()} == {digit: digit for digit in STROKES}
    for _, spikes, pictures in answer["drawn"].values():
        assert spikes.endswith(" spikes") and int(spikes.split()[0].replace(",", "")) > 1000
        assert pictures == 5 * 4
