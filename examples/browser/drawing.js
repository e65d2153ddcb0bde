// A canvas that is drawn on, and what the UCI digits make of ink: a bitmap of 32 x 32, counted in blocks of 4 x 4.

const SIDE = 280;
const PEN = 26;
const BITMAP = 32;
const BLOCK = 4;

export const IMAGE_SHAPE = [1, BITMAP / BLOCK, BITMAP / BLOCK];

export class Drawing {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} changed called after each stroke, and while one is drawn
   */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    canvas.width = canvas.height = SIDE;
    this.pen = canvas.getContext("2d", { willReadFrequently: true });
    this.pen.lineCap = this.pen.lineJoin = "round";
    this.pen.lineWidth = PEN;
    this.last = null;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => (this.last = null));
    }
  }

  begin(event) {
    event.preventDefault();
    if (event.isTrusted) {
      this.canvas.setPointerCapture(event.pointerId);
    }
    this.last = this.place(event);
    this.line(this.last);
  }

  go(event) {
    if (this.last !== null) {
      const place = this.place(event);
      this.line(place);
      this.last = place;
    }
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  }

  line([x, y]) {
    this.pen.beginPath();
    this.pen.moveTo(...this.last);
    this.pen.lineTo(x, y);
    this.pen.strokeStyle = getComputedStyle(this.canvas).color;
    this.pen.stroke();
    this.changed();
  }

  clear() {
    this.pen.clearRect(0, 0, SIDE, SIDE);
    this.changed();
  }

  /** The image of the drawing, (8, 8) of 0, 1/16, ..., 1 row by row; null where nothing is drawn. */
  image() {
    const { data } = this.pen.getImageData(0, 0, SIDE, SIDE);
    const inked = (x, y) => x >= 0 && y >= 0 && x < SIDE && y < SIDE && data[4 * (y * SIDE + x) + 3] >= 128;
    let [left, right, top, bottom] = [SIDE, -1, SIDE, -1];
    for (let y = 0; y < SIDE; y++) {
      for (let x = 0; x < SIDE; x++) {
        if (inked(x, y)) {
          [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
        }
      }
    }
    if (right < 0) {
      return null;
    }
    // As in the data, a digit fills the height, and stands in the middle of the width.
    const scale = Math.max(bottom - top + 1, right - left + 1) / BITMAP;
    const [startX, startY] = [(left + right + 1 - BITMAP * scale) / 2, (top + bottom + 1 - BITMAP * scale) / 2];
    const image = new Float32Array((BITMAP / BLOCK) ** 2);
    for (let row = 0; row < BITMAP; row++) {
      for (let column = 0; column < BITMAP; column++) {
        if (inked(Math.floor(startX + (column + 0.5) * scale), Math.floor(startY + (row + 0.5) * scale))) {
          image[Math.floor(row / BLOCK) * (BITMAP / BLOCK) + Math.floor(column / BLOCK)] += 1 / (BLOCK * BLOCK);
        }
      }
    }
    return image;
  }
}
