// Small pictures: the image that the network sees, the bars of its classes, and every spike of every layer and step.

function paint(canvas, width, height, shade) {
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(width, height);
  for (let place = 0; place < width * height; place++) {
    pixels.data.set(shade(place % width, Math.floor(place / width)), 4 * place);
  }
  pen.putImageData(pixels, 0, 0);
}

function colour(name) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d");
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data];
}

export function paintImage(canvas, image, side) {
  const ink = colour("--ink");
  paint(canvas, side, side, (x, y) => [ink[0], ink[1], ink[2], image === null ? 0 : 255 * image[y * side + x]]);
}

/** The divisor of a number that is closest to a wish, by their ratio: rows without a rest. */
function columns(number, wish) {
  const divisors = Array.from({ length: number }, (_, place) => place + 1).filter((size) => number % size === 0);
  const far = (size) => Math.abs(Math.log(size / wish));
  return divisors.reduce((best, size) => (far(size) < far(best) ? size : best));
}

/** Every neuron of a layer a pixel, its channels side by side with a pixel between them: spikes of one step. */
export function paintSpikes(canvas, data, [channels, height, width]) {
  const [fired, rest, gap] = [colour("--spike"), colour("--rest"), [0, 0, 0, 0]];
  const across = columns(channels, 1.5 * Math.sqrt((channels * height) / width));
  const down = channels / across;
  paint(canvas, across * (width + 1) - 1, down * (height + 1) - 1, (x, y) => {
    const [column, row] = [x % (width + 1), y % (height + 1)];
    const channel = Math.floor(y / (height + 1)) * across + Math.floor(x / (width + 1));
    if (column === width || row === height) {
      return gap;
    }
    return data[(channel * height + row) * width + column] ? fired : rest;
  });
}

export function showBars(list, logits) {
  const [least, most] = [Math.min(...logits), Math.max(...logits)];
  list.replaceChildren(
    ...Array.from(logits, (logit, number) => {
      const row = document.createElement("li");
      row.className = logit === most ? "first" : "";
      const [name, bar, value] = ["b", "i", "span"].map((tag) => row.appendChild(document.createElement(tag)));
      name.textContent = number;
      bar.style.setProperty("--share", most > least ? (logit - least) / (most - least) : 0);
      value.textContent = logit.toFixed(2);
      return row;
    }),
  );
}
