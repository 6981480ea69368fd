// Vectors as live bars: each number within the range that it has had so far.

import { brief, make, setText } from "./dom.js";

const MOST = 64;

export class Numbers {
  constructor() {
    this.rows = [];
    this.ranges = new Map();
  }

  /** Makes the bars in `root`. */
  configure(root, vectors) {
    this.root = root;
    this.vectors = vectors;
    this.rows = [];
    this.ranges.clear();
    root.replaceChildren();
  }

  build(values) {
    for (const { key, names } of this.vectors) {
      const all = values[key];
      if (!all) continue;
      const more = all.length > MOST ? `, the first ${MOST} of ${all.length}` : "";
      this.root.append(make("h3", {}, `${key}${more}`));
      all.slice(0, MOST).forEach((_, index) => this.row(key, index, names?.[index] ?? String(index)));
    }
  }

  row(key, index, text) {
    const name = make("span", { class: "name", title: text }, text);
    const fill = make("span");
    const value = make("span", { class: "value" });
    this.root.append(name, make("div", { class: "bar", "aria-hidden": "true" }, fill), value);
    this.rows.push({ key, index, fill, value });
  }

  draw(values) {
    if (!values || !this.root || this.root.closest("[hidden], details:not([open])")) return;
    if (!this.rows.length) this.build(values);
    for (const { key, index, fill, value } of this.rows) {
      const number = values[key]?.[index];
      if (number === undefined) continue;
      this.bar(fill, `${key} ${index}`, number);
      setText(value, brief(number));
    }
  }

  /** From zero to the number, on a scale that grows with what was seen. */
  bar(fill, name, number) {
    const [low, high] = this.ranges.get(name) ?? [-1e-6, 1e-6];
    const range = [Math.min(low, number), Math.max(high, number)];
    this.ranges.set(name, range);
    const place = (at) => (100 * (at - range[0])) / (range[1] - range[0]);
    const [zero, end] = [place(0), place(number)];
    fill.style.left = `${Math.min(zero, end)}%`;
    fill.style.width = `${Math.max(1, Math.abs(end - zero))}%`;
  }
}
