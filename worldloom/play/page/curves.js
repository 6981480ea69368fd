// Small curves along the branch: reward and its sum, the chance of an end, cost, disagreement. And lines per plan.

import { brief, colors, freshCanvas, make, setText } from "./dom.js";

const CURVES = [
  { id: "reward", label: "Reward", of: "reward", color: 0 },
  { id: "sum", label: "Reward so far", of: "reward", sum: true, color: 4 },
  { id: "terminated", label: "Chance of an end", of: "terminated", low: 0, high: 1, percent: true, color: 1 },
  { id: "cost", label: "Cost", of: "cost", color: 5 },
  { id: "disagreement", label: "Disagreement", of: "disagreement", low: 0, color: 2 },
];

export class Curves {
  constructor(root) {
    this.root = root;
    this.curves = [];
    this.walk = null;
    this.kept = { path: null, length: 0, values: new Map() };
  }

  configure(walk, signals) {
    this.walk = walk;
    this.forget();
    this.curves = CURVES.filter(({ of }) => signals.includes(of)).map((curve) => this.make(curve));
    this.root.replaceChildren(...this.curves.map(({ element }) => element));
    if (!this.curves.length) this.root.append(make("p", { class: "muted" }, "This model predicts no reward, end or cost."));
  }

  make(curve) {
    const canvas = make("canvas", { role: "img", id: `curve-${curve.id}`, "aria-label": curve.label });
    const value = make("span", { class: "value" });
    const element = make("div", { class: "curve" }, make("span", { class: "muted" }, curve.label), value, canvas);
    return { ...curve, canvas, value, element };
  }

  forget() {
    this.kept = { path: null, length: 0, values: new Map() };
  }

  /** The values along the branch. A path grows at its end while one plays, so only what is new is read. */
  values(path) {
    const grown = this.kept.path === path && this.kept.length <= path.length;
    if (!grown) this.forget();
    for (let i = this.kept.length; i < path.length; i += 1) {
      const { signals } = this.walk.moments.get(path[i]);
      for (const curve of this.curves) this.append(curve, signals[curve.of] ?? 0);
    }
    Object.assign(this.kept, { path, length: path.length });
    return this.kept.values;
  }

  append({ id, sum }, value) {
    if (!this.kept.values.has(id)) this.kept.values.set(id, []);
    const values = this.kept.values.get(id);
    // What a model reads out at the very first moment belongs to no action, but it is shown like any other.
    values.push(sum ? (values.at(-1) ?? 0) + (values.length ? value : 0) : value);
  }

  draw(path) {
    if (!this.walk || this.root.closest("[hidden]")) return;
    const found = this.values(path);
    for (const curve of this.curves) {
      const values = found.get(curve.id) ?? [];
      const now = values.at(-1) ?? 0;
      const text = curve.percent ? `${(100 * now).toFixed(now < 0.1 ? 1 : 0)} %` : brief(now);
      setText(curve.value, text);
      const label = `${curve.label}: ${text} after ${values.length - 1} steps`;
      if (curve.canvas.getAttribute("aria-label") !== label) curve.canvas.setAttribute("aria-label", label);
      line(curve.canvas, values, curve);
    }
  }
}

function extent(lists, low, high) {
  let [least, most] = [low ?? Infinity, high ?? -Infinity];
  for (const values of lists) {
    for (const value of values) {
      if (value < least) least = value;
      if (value > most) most = value;
    }
  }
  if (!Number.isFinite(least) || !Number.isFinite(most)) return [0, 1];
  return most - least < 1e-9 ? [least - 0.5, most + 0.5] : [least, most];
}

function line(canvas, values, { low, high, color }) {
  const { pen, width, height } = freshCanvas(canvas);
  const [least, most] = extent([values], low, high);
  const x = (i) => 3 + ((width - 8) * i) / Math.max(1, values.length - 1);
  const y = (value) => height - 3 - ((height - 6) * (value - least)) / (most - least);
  baseline(pen, width, least <= 0 && most >= 0 ? y(0) : height - 1);
  pen.strokeStyle = pen.fillStyle = colors.series[color];
  stroke(pen, values, x, y, Math.max(1, Math.floor(values.length / (2 * width))));
  if (!values.length) return;
  pen.beginPath();
  pen.arc(x(values.length - 1), y(values.at(-1)), 3, 0, 7);
  pen.fill();
}

function baseline(pen, width, y) {
  pen.strokeStyle = colors.line;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(0, Math.round(y) + 0.5);
  pen.lineTo(width, Math.round(y) + 0.5);
  pen.stroke();
}

/** Long walks have more values than pixels: then every `skip`th is enough, and always the last. */
function stroke(pen, values, x, y, skip = 1) {
  pen.lineWidth = 1.6;
  pen.lineJoin = "round";
  pen.beginPath();
  for (let i = 0; i < values.length; i += skip) pen.lineTo(x(i), y(values[i]));
  if (values.length) pen.lineTo(x(values.length - 1), y(values.at(-1)));
  pen.stroke();
}

/** One line per plan, a mark at `at`, and the plan `chosen` drawn stronger. */
export function plotPlans(canvas, plans, at, chosen) {
  const { pen, width, height } = freshCanvas(canvas);
  const longest = Math.max(2, ...plans.map((values) => values.length));
  const [, most] = extent(plans, 0);
  const x = (i) => 2 + ((width - 6) * i) / (longest - 1);
  const y = (value) => height - 3 - ((height - 8) * value) / most;
  baseline(pen, width, height - 1);
  plans.forEach((values, index) => {
    pen.globalAlpha = chosen === null || chosen === index ? 1 : 0.3;
    pen.strokeStyle = colors.series[index % colors.series.length];
    stroke(pen, values, x, y);
  });
  pen.globalAlpha = 1;
  pen.fillStyle = colors.text;
  pen.fillRect(x(at - 1) - 0.5, 0, 1, height);
}
