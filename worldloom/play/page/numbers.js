// Vectors as live bars: each number within the range that it has had so far, and a mark where it really is.

import { brief, make, setText, show } from "./dom.js";

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
    const mark = make("span", { class: "real" });
    const value = make("span", { class: "value" });
    this.root.append(name, make("div", { class: "bar", "aria-hidden": "true" }, fill, mark), value);
    this.rows.push({ key, index, fill, mark, value });
  }

  /** Shows a moment's vectors, and with `real` what is true of them: null when it is not asked for. */
  draw(values, real) {
    if (!values || !this.root || this.root.closest("[hidden], details:not([open])")) return;
    if (!this.rows.length) this.build(values);
    this.root.toggleAttribute("data-real", real !== null);
    for (const row of this.rows) {
      const [number, truth] = [values[row.key]?.[row.index], real?.[row.key]?.[row.index]];
      if (number === undefined) continue;
      this.bar(row, number, truth);
      setText(row.value, truth === undefined ? brief(number) : `${brief(number)}, really ${brief(truth)}`);
    }
  }

  /** From zero to the number, on a scale that grows with what was seen. */
  bar({ key, index, fill, mark }, number, truth) {
    const place = this.scale(`${key} ${index}`, truth === undefined ? [number] : [number, truth]);
    const [zero, end] = [place(0), place(number)];
    fill.style.left = `${Math.min(zero, end)}%`;
    fill.style.width = `${Math.max(1, Math.abs(end - zero))}%`;
    show(mark, truth !== undefined);
    if (truth === undefined) return;
    mark.style.left = `${place(truth)}%`;
    mark.style.transform = `translateX(-${place(truth)}%)`; // whole even at an end of the bar
  }

  /** Where a number of this row lies, in percent, once the row's range holds `numbers`. */
  scale(name, numbers) {
    const [low, high] = this.ranges.get(name) ?? [-1e-6, 1e-6];
    const range = [Math.min(low, ...numbers), Math.max(high, ...numbers)];
    this.ranges.set(name, range);
    return (at) => (100 * (at - range[0])) / (range[1] - range[0]);
  }
}
