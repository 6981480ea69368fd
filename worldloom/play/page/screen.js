// The pictures of a moment on canvases, pixel by pixel: dream, reality beside it, their difference, and heat above.

import { make, setText, show } from "./dom.js";

const GAP = 14;
const CAPTION = 24;
const ROLES = ["dream", "real", "difference"];

export class Screen {
  constructor(root, stage) {
    this.root = root;
    this.stage = stage;
    this.cameras = [];
    this.reality = false;
    this.heat = false;
    new ResizeObserver(() => this.fit()).observe(stage);
    globalThis.addEventListener("resize", () => this.fit());
  }

  /** Makes a canvas for each picture of the model and each role. */
  configure(pictures, real) {
    this.main = real ? "real" : "dream";
    this.cameras = pictures.map((picture, index) => this.camera(picture, index));
    this.root.replaceChildren(...this.cameras.flatMap((camera) => Object.values(camera.figures)));
    this.arrange();
  }

  camera({ key, height, width }, index) {
    const figures = {};
    const canvases = {};
    for (const role of this.main === "real" ? ["real"] : ROLES) {
      const canvas = make("canvas", { role: "img", "aria-label": `${role} ${key}, ${width} by ${height}` });
      Object.assign(canvas, { width, height });
      canvas.id = role === this.main ? (index ? `picture-${key}` : "picture") : `${role}-${key}`;
      canvases[role] = canvas;
      figures[role] = make("figure", { class: "picture" }, make("div", { class: "layers" }, canvas), make("figcaption"));
    }
    canvases.heat = Object.assign(make("canvas", { "aria-hidden": "true" }), { height, width });
    figures[this.main].firstChild.append(canvases.heat);
    return { key, height, width, figures, canvases };
  }

  /** What a moment needs to be shown whole. */
  get roles() {
    return [this.main, ...(this.heat ? ["heat"] : []), ...(this.reality ? ["real"] : [])];
  }

  setLayers(reality, heat) {
    this.reality = reality;
    this.heat = heat;
    this.arrange();
  }

  arrange() {
    for (const { figures, canvases } of this.cameras) {
      show(canvases.heat, this.heat);
      if (this.main === "dream") for (const role of ["real", "difference"]) show(figures[role], this.reality);
    }
    this.fit();
  }

  /** Chooses the number of columns that makes the pictures largest, and whole factors so that pixels stay square. */
  fit() {
    const shown = this.cameras.flatMap(({ figures, height, width }) =>
      Object.values(figures).filter((figure) => !figure.hidden).map((figure) => ({ figure, height, width })));
    if (!shown.length) return;
    const { width, height } = this.room();
    let best = null;
    for (let columns = 1; columns <= shown.length; columns += 1) {
      const rows = Math.ceil(shown.length / columns);
      const box = { width: (width - GAP * (columns - 1)) / columns, height: (height - GAP * (rows - 1)) / rows - CAPTION };
      const size = Math.min(...shown.map((each) => factor(each, box) * each.width));
      if (best === null || size > best.size) best = { columns, box, size };
    }
    this.root.style.display = "grid";
    this.root.style.gridTemplateColumns = `repeat(${best.columns}, auto)`;
    for (const each of shown) this.resize(each, factor(each, best.box));
  }

  room() {
    const style = getComputedStyle(this.stage);
    const across = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    const along = parseFloat(style.paddingTop) + parseFloat(style.paddingBottom);
    // Where everything is stacked the stage is as high as the picture, so the window decides.
    const stacked = getComputedStyle(this.stage.parentElement).display !== "grid";
    const height = stacked ? innerHeight * 0.6 : this.stage.clientHeight - along;
    return { width: this.stage.clientWidth - across, height };
  }

  resize({ figure, height, width }, scale) {
    const { style } = figure.firstChild;
    style.width = `${width * scale}px`;
    style.height = `${height * scale}px`;
    for (const canvas of figure.firstChild.children) {
      canvas.style.width = style.width;
      canvas.style.height = style.height;
    }
  }

  /** Draws what is known of a moment. `pictures` by "role key"; undefined while they are being fetched. */
  draw(pictures) {
    for (const camera of this.cameras) {
      const main = pictures?.get(`${this.main} ${camera.key}`);
      camera.figures[this.main].firstChild.toggleAttribute("data-waiting", !main);
      if (main) paint(camera.canvases[this.main], main);
      if (this.heat) this.drawHeat(camera, pictures?.get(`heat ${camera.key}`));
      if (this.reality && this.main !== "real") this.drawReality(camera, main, pictures?.get(`real ${camera.key}`));
      this.caption(camera, this.main, this.reality ? "dream" : "");
    }
  }

  caption(camera, role, text) {
    const name = this.cameras.length > 1 ? camera.key : "";
    setText(camera.figures[role].lastChild, [name, text].filter(Boolean).join(": "));
  }

  drawReality(camera, dream, real) {
    this.caption(camera, "real", real ? "reality" : "nobody knows what is true here");
    for (const role of ["real", "difference"]) camera.figures[role].firstChild.toggleAttribute("data-waiting", !real);
    if (!real || !dream) {
      for (const role of ["real", "difference"]) clear(camera.canvases[role]);
      this.caption(camera, "difference", "difference");
      return;
    }
    paint(camera.canvases.real, real);
    const mean = paintDifference(camera.canvases.difference, dream, real);
    this.caption(camera, "difference", `difference, ${(100 * mean).toFixed(1)} %`);
  }

  drawHeat(camera, heat) {
    if (heat) paintHeat(camera.canvases.heat, heat);
    else clear(camera.canvases.heat);
  }
}

/** The largest factor that is whole in pixels of the device. Only what is too large for the window gets a broken one. */
export function factor({ height, width }, box) {
  const ratio = globalThis.devicePixelRatio || 1;
  const most = Math.min(box.width / width, box.height / height) * ratio;
  return (most >= 1 ? Math.floor(most) : Math.max(most, 0.05)) / ratio;
}

function imageOf(canvas) {
  canvas.image ??= canvas.getContext("2d").createImageData(canvas.width, canvas.height);
  return canvas.image;
}

function put(canvas, image) {
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export function clear(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

/** Raw rows onto a canvas of their size. */
export function paint(canvas, picture) {
  const image = imageOf(canvas);
  toRgba(picture, image.data);
  put(canvas, image);
}

/** RGB or grey rows as RGBA. */
export function toRgba({ pixels, channels }, data) {
  const count = data.length / 4;
  const [green, blue] = channels === 3 ? [1, 2] : [0, 0];
  for (let i = 0; i < count; i += 1) {
    const from = i * channels;
    const to = i * 4;
    data[to] = pixels[from];
    data[to + 1] = pixels[from + green];
    data[to + 2] = pixels[from + blue];
    data[to + 3] = 255;
  }
}

function paintDifference(canvas, dream, real) {
  const image = imageOf(canvas);
  const channels = Math.min(dream.channels, real.channels);
  let sum = 0;
  for (let i = 0; i < dream.height * dream.width; i += 1) {
    for (let c = 0; c < 3; c += 1) {
      const channel = Math.min(c, channels - 1);
      const apart = Math.abs(dream.pixels[i * dream.channels + channel] - real.pixels[i * real.channels + channel]);
      image.data[i * 4 + c] = apart;
      sum += apart;
    }
    image.data[i * 4 + 3] = 255;
  }
  put(canvas, image);
  return sum / (dream.height * dream.width * 3 * 255);
}

/** From clear through amber to red, so that the picture stays visible where the dream is sure. */
function paintHeat(canvas, { pixels }) {
  const image = imageOf(canvas);
  for (let i = 0; i < pixels.length; i += 1) {
    const heat = pixels[i] / 255;
    image.data[i * 4] = 255;
    image.data[i * 4 + 1] = 190 * (1 - heat);
    image.data[i * 4 + 2] = 30 + 60 * heat;
    image.data[i * 4 + 3] = 225 * Math.sqrt(heat);
  }
  put(canvas, image);
}
