// A bundle's model.onnx in onnxruntime-web, on the processor (WebAssembly).

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

// Everything comes from this folder. Several threads would need the headers of cross-origin isolation.
ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1;

const SPIKES = "spikes/";

export class Network {
  /** @param {string} url of model.onnx */
  static async load(url) {
    const answer = await fetch(url);
    if (!answer.ok) {
      throw new Error(`There is no ${url} (${answer.status}).`);
    }
    return new Network(await ort.InferenceSession.create(await answer.arrayBuffer()));
  }

  constructor(session) {
    this.session = session;
    this.layers = session.outputNames.filter((name) => name.startsWith(SPIKES)).map((name) => name.slice(SPIKES.length));
  }

  /**
   * Runs a batch.
   * @param {Float32Array} images one after the other, as the network takes them
   * @param {number[]} shape of an image: [channels, height, width]
   * @returns {Promise<{steps: number, classes: number, logits: Float32Array, spikes: Map}>} logits are
   *   (steps, batch, classes), the mean readout of the first t steps; spikes are by layer {shape: (steps, batch, ...), data: 0 and 1}
   */
  async run(images, shape) {
    const batch = images.length / shape.reduce((product, size) => product * size, 1);
    const found = await this.session.run({ images: new ort.Tensor("float32", images, [batch, ...shape]) });
    const [steps, , classes] = found.logits.dims;
    const spikes = new Map();
    for (const layer of this.layers) {
      const { dims, data } = found[SPIKES + layer];
      spikes.set(layer, { shape: dims, data });
    }
    return { steps, classes, logits: found.logits.data, spikes };
  }
}
