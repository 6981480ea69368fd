// Editing a moment's picture: brush, erase, pick, copy, move, undo. The result is raw RGB rows, nothing else.

import { clamp, find, make, setText, show } from "./dom.js";
import { toRgba } from "./screen.js";

const MOST_UNDO = 50;
const HELP = {
  brush: "Paint with the colour. By keyboard: arrows move, Enter paints.",
  erase: "Fills with the colours from around the brush.",
  pick: "Takes a colour from the picture.",
  copy: "Draw a rectangle, then put copies of it down. Escape lets go of it.",
  move: "Draw a rectangle, then put it down elsewhere; where it was is filled from around it.",
};

export class Paint {
  /** `listeners`: shown(), pictureOf(moment, key), layersOf(key), apply(moment, key, base64), changed(active). */
  constructor(listeners) {
    this.listeners = listeners;
    Object.assign(this, { active: false, undo: [], cursor: null, corner: null, clip: null, stroke: false, tool: "brush" });
    this.canvas = make("canvas", { id: "paint-canvas", "aria-hidden": "true" });
    this.marks = make("canvas", { id: "paint-marks", "aria-hidden": "true" });
    find("paint").addEventListener("click", () => this.toggle());
    find("paint-cancel").addEventListener("click", () => this.stop());
    find("undo").addEventListener("click", () => this.goBack());
    find("edit").addEventListener("click", () => this.apply());
    find("paint-key").addEventListener("change", (event) => this.begin(event.target.value));
    find("brush").addEventListener("input", () => this.sized());
    for (const radio of document.querySelectorAll("[name=tool]")) {
      radio.addEventListener("change", () => this.choose(radio.value));
    }
    this.choose("brush");
    this.hands = {
      pointerdown: (event) => this.down(event), pointermove: (event) => this.move(event),
      pointerup: (event) => this.up(event), pointercancel: (event) => this.up(event),
      keydown: (event) => this.key(event), pointerleave: () => this.drawMarks(),
    };
  }

  configure(pictures) {
    this.stop();
    this.pictures = pictures;
    const options = pictures.map(({ key }) => make("option", { value: key }, key));
    find("paint-key").replaceChildren(...options);
    show(find("paint-key-field"), pictures.length > 1);
    find("paint").disabled = !pictures.length;
  }

  toggle() {
    if (this.active) this.stop();
    else if (this.pictures?.length) this.begin(find("paint-key").value);
  }

  /** On the moment that is shown now; it stays that one even if another is shown later, under the canvas. */
  begin(key) {
    const moment = this.listeners.shown();
    const picture = this.listeners.pictureOf(moment, key);
    if (!picture) return;
    this.leave();
    this.moment = moment;
    this.camera = key;
    this.height = picture.height;
    this.width = picture.width;
    for (const canvas of [this.canvas, this.marks]) Object.assign(canvas, { width: this.width, height: this.height });
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.image = this.pen.createImageData(this.width, this.height);
    toRgba(picture, this.image.data);
    this.undo = [];
    this.cursor = [this.width >> 1, this.height >> 1];
    this.clip = this.corner = null;
    this.enter(this.listeners.layersOf(key));
  }

  enter(layers) {
    this.layers = layers;
    layers.append(this.canvas, this.marks);
    for (const canvas of [this.canvas, this.marks]) {
      canvas.style.width = layers.style.width;
      canvas.style.height = layers.style.height;
    }
    layers.dataset.painting = "";
    layers.tabIndex = 0;
    layers.setAttribute("role", "application");
    layers.setAttribute("aria-label", "Painting: arrows move the brush, Enter paints, Escape leaves");
    for (const [name, hand] of Object.entries(this.hands)) layers.addEventListener(name, hand);
    this.active = true;
    this.drawAll();
    this.listeners.changed(true);
    layers.focus({ preventScroll: true });
  }

  leave() {
    if (!this.layers) return;
    for (const [name, hand] of Object.entries(this.hands)) this.layers.removeEventListener(name, hand);
    for (const name of ["data-painting", "tabindex", "role", "aria-label"]) this.layers.removeAttribute(name);
    this.canvas.remove();
    this.marks.remove();
    this.layers = null;
  }

  stop() {
    if (!this.active) return;
    this.leave();
    this.active = false;
    this.listeners.changed(false);
  }

  apply() {
    const { data } = this.image;
    const rows = new Uint8Array((data.length / 4) * 3);
    for (let from = 0, to = 0; from < data.length; from += 4, to += 3) rows.set(data.subarray(from, from + 3), to);
    this.listeners.apply(this.moment, this.camera, toBase64(rows));
  }

  // Tools

  choose(tool) {
    this.tool = tool;
    this.clip = this.corner = null;
    find(`tool-${tool}`).checked = true;
    setText(find("paint-help"), HELP[tool]);
    if (this.active) this.drawMarks();
  }

  get size() {
    return Number(find("brush").value);
  }

  get color() {
    const hex = find("colour").value;
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }

  sized() {
    setText(find("brush-text"), String(this.size));
    if (this.active) this.drawMarks();
  }

  /** Something begins at the cursor. */
  start() {
    const [x, y] = this.cursor;
    if (this.tool === "pick") return this.pick(x, y);
    if (this.tool === "copy" || this.tool === "move") return this.clip ? this.paste() : this.select(x, y);
    this.remember();
    this.stroke = true;
    this.dab(x, y);
    return this.drawAll();
  }

  select(x, y) {
    this.corner = [x, y];
    this.drawMarks();
  }

  /** The rectangle between the corner and the cursor is taken up. */
  take() {
    const box = this.box();
    this.corner = null;
    const pixels = this.pen.getImageData(box.x, box.y, box.width, box.height);
    this.clip = { ...box, pixels };
    if (this.tool === "move") {
      this.remember();
      this.fillFromAround(box);
    }
    this.drawAll();
  }

  box() {
    const [[ax, ay], [bx, by]] = [this.corner, this.cursor];
    const [x, y] = [Math.min(ax, bx), Math.min(ay, by)];
    return { x, y, width: Math.abs(ax - bx) + 1, height: Math.abs(ay - by) + 1 };
  }

  paste() {
    if (this.tool === "copy") this.remember();
    this.pen.putImageData(this.image, 0, 0);
    const { x, y } = this.clipPlace();
    this.pen.putImageData(this.clip.pixels, x, y);
    this.image = this.pen.getImageData(0, 0, this.width, this.height);
    // What was moved lies now where it was put; of a copy more may follow.
    if (this.tool === "move") this.clip = null;
    this.drawAll();
  }

  clipPlace() {
    const { width, height } = this.clip;
    return { x: this.cursor[0] - (width >> 1), y: this.cursor[1] - (height >> 1), width, height };
  }

  pick(x, y) {
    const at = 4 * (y * this.width + x);
    const hex = [...this.image.data.subarray(at, at + 3)].map((value) => value.toString(16).padStart(2, "0"));
    find("colour").value = `#${hex.join("")}`;
    this.choose("brush");
  }

  dab(x, y) {
    if (this.tool === "erase") this.eraseAt(x, y);
    else for (const [px, py] of this.brush(x, y)) this.set(px, py, this.color);
  }

  /** Pixels of a round brush. */
  brush(x, y) {
    const found = [];
    const size = this.size;
    const low = -((size - 1) >> 1);
    for (let dy = low; dy < low + size; dy += 1) {
      for (let dx = low; dx < low + size; dx += 1) {
        const middle = low + (size - 1) / 2;
        if (Math.hypot(dx - middle, dy - middle) > size / 2) continue;
        if (this.inside(x + dx, y + dy)) found.push([x + dx, y + dy]);
      }
    }
    return found;
  }

  eraseAt(x, y) {
    const size = this.size;
    const low = (size - 1) >> 1;
    this.fillFromAround({ x: x - low, y: y - low, width: size, height: size });
  }

  /** Fills a box row by row and column by column from the pixels at its four sides, nearer ones counting more. */
  fillFromAround({ x, y, width, height }) {
    const before = this.image.data.slice();
    const colorAt = (px, py) => (this.inside(px, py) ? before.subarray(4 * (py * this.width + px), 4 * (py * this.width + px) + 3) : null);
    for (let py = y; py < y + height; py += 1) {
      for (let px = x; px < x + width; px += 1) {
        const sides = [
          [colorAt(x - 1, py), px - x + 1], [colorAt(x + width, py), x + width - px],
          [colorAt(px, y - 1), py - y + 1], [colorAt(px, y + height), y + height - py],
        ].filter(([color]) => color);
        if (this.inside(px, py) && sides.length) this.set(px, py, blend(sides));
      }
    }
  }

  inside(x, y) {
    return x >= 0 && y >= 0 && x < this.width && y < this.height;
  }

  set(x, y, color) {
    this.image.data.set(color, 4 * (y * this.width + x));
  }

  remember() {
    this.undo.push(this.image.data.slice());
    if (this.undo.length > MOST_UNDO) this.undo.shift();
  }

  goBack() {
    const before = this.undo.pop();
    if (!before) return;
    this.image.data.set(before);
    this.clip = this.corner = null;
    this.drawAll();
  }

  // Hands

  at(event) {
    const box = this.layers.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.height);
    return [clamp(x, 0, this.width - 1), clamp(y, 0, this.height - 1)];
  }

  down(event) {
    if (event.button !== 0) return;
    this.layers.setPointerCapture(event.pointerId);
    this.cursor = this.at(event);
    this.start();
  }

  move(event) {
    const from = this.cursor;
    this.cursor = this.at(event);
    if (this.stroke) {
      this.along(from, this.cursor);
      this.drawAll();
    } else this.drawMarks();
  }

  along([fromX, fromY], [toX, toY]) {
    const steps = Math.max(Math.abs(toX - fromX), Math.abs(toY - fromY), 1);
    for (let i = 1; i <= steps; i += 1) {
      this.dab(Math.round(fromX + ((toX - fromX) * i) / steps), Math.round(fromY + ((toY - fromY) * i) / steps));
    }
  }

  up() {
    this.stroke = false;
    if (this.corner) this.take();
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") this.goBack();
    else if (event.key in moves) this.step(moves[event.key], event.shiftKey ? 5 : 1);
    else if (event.key === "Enter" || event.key === " ") this.press();
    else if (event.key === "Escape") this.escape();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  step([dx, dy], far) {
    this.cursor = [clamp(this.cursor[0] + dx * far, 0, this.width - 1), clamp(this.cursor[1] + dy * far, 0, this.height - 1)];
    this.drawMarks();
    setText(find("paint-help"), `${HELP[this.tool]} At column ${this.cursor[0]}, row ${this.cursor[1]}.`);
  }

  /** By keyboard a rectangle has its first corner at one press and its second at the next. */
  press() {
    if (this.corner) this.take();
    else this.start();
    this.stroke = false;
  }

  escape() {
    if (this.clip || this.corner) this.choose(this.tool);
    else this.stop();
  }

  // Drawing

  drawAll() {
    this.pen.putImageData(this.image, 0, 0);
    find("undo").disabled = !this.undo.length;
    find("edit").disabled = !this.undo.length;
    this.drawMarks();
  }

  /** The brush, the rectangle or what is about to be put down, above the picture. */
  drawMarks() {
    const pen = this.marks.getContext("2d");
    pen.clearRect(0, 0, this.width, this.height);
    if (this.clip) {
      const { x, y } = this.clipPlace();
      pen.putImageData(this.clip.pixels, x, y);
    } else if (this.corner) {
      const { x, y, width, height } = this.box();
      pen.fillStyle = "rgb(190 120 255 / 45%)";
      pen.fillRect(x, y, width, height);
    } else if (this.cursor) {
      pen.fillStyle = this.tool === "brush" ? find("colour").value : "rgb(190 120 255 / 60%)";
      const pixels = this.tool === "brush" || this.tool === "erase" ? this.brush(...this.cursor) : [this.cursor];
      for (const [x, y] of pixels) pen.fillRect(x, y, 1, 1);
    }
  }
}

function blend(sides) {
  const color = [0, 0, 0];
  let weights = 0;
  for (const [side, distance] of sides) {
    weights += 1 / distance;
    for (let c = 0; c < 3; c += 1) color[c] += side[c] / distance;
  }
  return color.map((value) => Math.round(value / weights));
}

function toBase64(bytes) {
  const parts = [];
  // In pieces, because a function takes only so many arguments.
  for (let i = 0; i < bytes.length; i += 32_768) parts.push(String.fromCharCode(...bytes.subarray(i, i + 32_768)));
  return btoa(parts.join(""));
}
