// Puts the parts together: what is drawn becomes an image, the image goes through the network, and all is shown.

import { Drawing, IMAGE_SHAPE } from "./drawing.js";
import { Network } from "./network.js";
import { paintImage, paintSpikes, showBars } from "./pictures.js";

const at = (name) => document.getElementById(name);
const model = new URLSearchParams(location.search).get("model") ?? "model/model.onnx";

function bestOf(logits) {
  return logits.indexOf(Math.max(...logits));
}

function showSteps(result) {
  const shown = [];
  for (let t = 0; t < result.steps; t++) {
    const part = result.logits.subarray(t * result.classes, (t + 1) * result.classes);
    shown.push(`after step ${t + 1}: ${bestOf(part)}`);
  }
  at("by-step").textContent = shown.join("\n");
}

function showSpikes(result) {
  const table = at("spikes");
  table.replaceChildren();
  const head = table.insertRow();
  head.appendChild(document.createElement("th")).textContent = "layer";
  for (let t = 1; t <= result.steps; t++) {
    head.appendChild(document.createElement("th")).textContent = `step ${t}`;
  }
  let total = 0;
  for (const [layer, { shape, data }] of result.spikes) {
    const size = data.length / result.steps;
    const row = table.insertRow();
    row.appendChild(document.createElement("th")).textContent = `${layer}\n${size.toLocaleString("en")} neurons`;
    for (let t = 0; t < result.steps; t++) {
      const fired = data.subarray(t * size, (t + 1) * size);
      const count = fired.reduce((sum, spike) => sum + spike, 0);
      total += count;
      const cell = row.insertCell();
      const canvas = cell.appendChild(document.createElement("canvas"));
      paintSpikes(canvas, fired, [shape[2], shape[3] ?? 1, shape[4] ?? 1]);
      canvas.title = `${layer}, step ${t + 1}: ${count} of ${size} neurons fire`;
      cell.appendChild(document.createElement("small")).textContent = `${((100 * count) / size).toFixed(0)} %`;
    }
  }
  at("total").textContent = `${total.toLocaleString("en")} spikes`;
}

async function main() {
  const network = await Network.load(model);
  let waiting = false;
  let running = false;

  // One run at a time: what is drawn meanwhile is run once after it.
  async function classify() {
    waiting = true;
    if (running) {
      return;
    }
    running = true;
    while (waiting) {
      waiting = false;
      const image = drawing.image();
      paintImage(at("seen"), image, IMAGE_SHAPE[1]);
      document.body.classList.toggle("empty", image === null);
      const begun = performance.now();
      const result = await network.run(image ?? new Float32Array(IMAGE_SHAPE[1] * IMAGE_SHAPE[2]), IMAGE_SHAPE);
      const last = result.logits.subarray((result.steps - 1) * result.classes);
      at("digit").textContent = image === null ? "–" : bestOf(last);
      at("time").textContent = `${(performance.now() - begun).toFixed(1)} ms`;
      showBars(at("bars"), last);
      showSteps(result);
      showSpikes(result);
    }
    running = false;
    document.body.dataset.state = "ready";
  }

  const drawing = new Drawing(at("drawing"), () => {
    document.body.dataset.state = "running";
    classify();
  });
  at("clear").addEventListener("click", () => drawing.clear());
  await classify();
}

main().catch((error) => {
  document.body.dataset.state = "failed";
  at("failure").hidden = false;
  at("failure").textContent = `${error.message} See README.md beside this page.`;
});
