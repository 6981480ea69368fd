// What if: several plans from one moment, as small pictures that go through time together, and how far they part.

import { calm, clamp, colors, count, find, make, setText, show } from "./dom.js";
import { plotPlans } from "./curves.js";
import { factor, toRgba } from "./screen.js";

const PICTURE_FACTS = 46; // what a cell needs above and below its picture
const RANDOM_HOLD = 4; // steps: what changes at every step only trembles
const RANDOM_PLANS = 3;

/** The plans that are ticked, at most `most` of them. */
export function choosePlans(controls, wanted, steps, most) {
  const others = [];
  if (wanted.mine) others.push(minePlan(wanted.mine, steps));
  if (wanted.random) for (let i = 1; i <= RANDOM_PLANS; i += 1) others.push(randomPlan(controls, steps, i));
  // Of a world with many actions only as many are tried as the others leave room for.
  const constant = wanted.constant ? controls.constantPlans(steps, Math.max(0, most - others.length)) : [];
  return [...constant, ...others].slice(0, most);
}

function minePlan(actions, steps) {
  return { label: "my actions", actions: actions.slice(0, steps) };
}

function randomPlan(controls, steps, number) {
  const actions = [];
  while (actions.length < steps) {
    const action = controls.random();
    for (let i = 0; i < RANDOM_HOLD && actions.length < steps; i += 1) actions.push(action);
  }
  return { label: `by chance ${number}`, actions };
}

export class WhatIf {
  /** `listeners`: fetch(numbers), go(number), closed(). */
  constructor(listeners) {
    this.listeners = listeners;
    this.view = find("whatif-view");
    this.cells = find("grid");
    this.scrub = find("whatif-scrub");
    this.plot = find("whatif-plot");
    Object.assign(this, { plans: [], divergence: [], chosen: null, timer: null, walk: null, done: false, touched: false });
    this.scrub.addEventListener("input", () => this.scrubbed());
    find("whatif-play").addEventListener("click", () => this.toggle());
    find("whatif-close").addEventListener("click", () => this.close());
    this.view.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.open && this.fit()).observe(this.view);
  }

  get open() {
    return !this.view.hidden;
  }

  get at() {
    return Number(this.scrub.value);
  }

  get longest() {
    return Math.max(1, ...this.plans.map(({ numbers }) => numbers.length));
  }

  configure(walk, pictures, fps) {
    this.walk = walk;
    this.pictures = pictures;
    this.fps = fps;
    Object.assign(this, { plans: [], divergence: [] });
    this.close(false);
  }

  /** Begins to show plans whose moments are still to come. Gives what `plans` is until others take their place. */
  begin(plans) {
    this.plans = plans.map((plan) => ({ ...plan, numbers: [] }));
    Object.assign(this, { divergence: [], chosen: null, done: false, touched: false });
    this.scrub.max = "1";
    this.scrub.value = "1";
    this.cells.replaceChildren(...this.plans.map((plan, index) => this.cell(plan, index)));
    this.reopen();
    return this.plans;
  }

  reopen() {
    show(this.view, true);
    this.fit();
    this.showStep(this.at);
    this.scrub.focus({ preventScroll: true });
    this.view.scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
  }

  /** One more moment of plan number `index`; the picture follows the plans as they grow, until somebody moves it. */
  add(index, number) {
    this.plans[index].numbers.push(number);
    this.scrub.max = String(this.longest);
    if (!this.touched) this.scrub.value = this.scrub.max;
    this.soon();
  }

  finish(divergence) {
    this.divergence = divergence;
    this.done = true;
    this.soon();
  }

  /** Draws once a frame, however many moments came. */
  soon() {
    this.asked ??= requestAnimationFrame(() => {
      this.asked = null;
      if (this.open) this.showStep(this.at);
    });
  }

  close(tell = true) {
    this.stop();
    if (!this.open) return;
    show(this.view, false);
    if (tell) this.listeners.closed();
  }

  // Drawing

  cell(plan, index) {
    plan.canvas = make("canvas", { "aria-hidden": "true" });
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = `var(--series-${index % 9})`;
    const label = make("span", { class: "label" }, swatch, make("span", {}, plan.label));
    plan.button = make("button", { type: "button", class: "cell" }, plan.canvas, label);
    plan.button.addEventListener("click", () => this.goTo(plan));
    for (const [name, chosen] of [["pointerenter", index], ["focus", index], ["pointerleave", null], ["blur", null]]) {
      plan.button.addEventListener(name, () => this.mark(chosen));
    }
    return plan.button;
  }

  mark(chosen) {
    this.chosen = chosen;
    this.drawPlot();
  }

  /** As many columns as make the pictures largest. */
  fit() {
    const { width, height } = this.size();
    const room = { width: this.cells.clientWidth, height: this.cells.clientHeight };
    let best = { scale: 0, columns: 1 };
    for (let columns = 1; columns <= this.plans.length; columns += 1) {
      const rows = Math.ceil(this.plans.length / columns);
      const box = { width: room.width / columns - 22, height: room.height / rows - PICTURE_FACTS };
      const scale = factor({ width, height }, box);
      if (scale > best.scale) best = { scale, columns };
    }
    this.cells.style.gridTemplateColumns = `repeat(${best.columns}, auto)`;
    for (const { canvas } of this.plans) {
      Object.assign(canvas, { width, height });
      canvas.style.width = `${width * best.scale}px`;
      canvas.style.height = `${height * best.scale}px`;
    }
    if (this.open) this.showStep(this.at);
  }

  /** All cameras side by side; bars where a model imagines no picture. */
  size() {
    if (!this.pictures.length) return { width: 240, height: 150 };
    const width = this.pictures.reduce((sum, picture) => sum + picture.width, 0);
    return { width, height: Math.max(...this.pictures.map((picture) => picture.height)) };
  }

  showStep(at) {
    const missing = [];
    for (const plan of this.plans) {
      const number = plan.numbers[Math.min(at, plan.numbers.length) - 1];
      if (number === undefined) continue;
      if (!this.drawCell(plan, number)) missing.push(number);
    }
    if (missing.length) this.listeners.fetch([...new Set(missing)]).then(() => this.soon(), () => {});
    const now = clamp(at, 1, this.longest);
    setText(find("whatif-step"), `step ${now} of ${this.longest}`);
    this.scrub.setAttribute("aria-valuetext", `step ${now} of ${this.longest}`);
    this.drawPlot();
  }

  drawCell(plan, number) {
    const moment = this.walk.moments.get(number);
    const pen = plan.canvas.getContext("2d");
    const reward = plan.numbers.slice(0, this.at).reduce((sum, each) => sum + (this.walk.moments.get(each)?.signals.reward ?? 0), 0);
    const known = "reward" in (moment?.signals ?? {}) ? `, reward ${reward.toFixed(2)}` : "";
    const label = `${plan.label}${known}: go there, step ${Math.min(this.at, plan.numbers.length)}`;
    if (plan.button.getAttribute("aria-label") !== label) plan.button.setAttribute("aria-label", label);
    plan.button.title = `${plan.label}${known}`;
    if (!this.pictures.length) return drawBars(pen, plan.canvas, moment);
    const kept = this.walk.picturesOf(number);
    let left = 0;
    for (const { key, width, height } of this.pictures) {
      const picture = kept?.get(`dream ${key}`);
      if (!picture) return false;
      const image = pen.createImageData(width, height);
      toRgba(picture, image.data);
      pen.putImageData(image, left, 0);
      left += width;
    }
    return true;
  }

  drawPlot() {
    if (this.open) plotPlans(this.plot, this.divergence, clamp(this.at, 1, this.longest), this.chosen);
    const last = this.divergence.map((values, index) => `${this.plans[index].label} ${(values.at(-1) ?? 0).toFixed(3)}`);
    if (this.done) this.plot.setAttribute("aria-label", `How far each plan ends from the mean of all: ${last.join(", ")}`);
  }

  // Doing

  goTo(plan) {
    const number = plan.numbers[Math.min(this.at, plan.numbers.length) - 1];
    if (number === undefined) return;
    this.close();
    this.listeners.go(number);
  }

  toggle() {
    if (this.timer) this.stop();
    else this.start();
  }

  scrubbed() {
    this.touched = true;
    this.showStep(this.at);
  }

  start() {
    this.touched = true;
    if (this.at >= this.longest) this.scrub.value = "1";
    const every = clamp(1000 / this.fps, 40, 400);
    this.timer = setInterval(() => {
      if (this.at >= this.longest) this.scrub.value = "1";
      else this.scrub.value = String(this.at + 1);
      this.showStep(this.at);
    }, every);
    this.marked(true);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.marked(false);
  }

  marked(playing) {
    const button = find("whatif-play");
    button.setAttribute("aria-pressed", String(playing));
    button.querySelector("use").setAttribute("href", playing ? "#icon-pause" : "#icon-play");
  }

  key(event) {
    if (event.key === "Escape") this.close();
    else if (event.key === " " && !event.target.matches("button")) this.toggle();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** What the list of plans says before they are tried. */
  static note(plans) {
    return plans.length ? `${count(plans.length, "plan")}: ${plans.map(({ label }) => label).join("; ")}` : "No plan is chosen.";
  }
}

function drawBars(pen, canvas, moment) {
  if (!moment) return false;
  const values = Object.values(moment.vectors).flat().slice(0, 24);
  const most = Math.max(1e-6, ...values.map(Math.abs));
  const tall = canvas.height / Math.max(1, values.length);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = colors.accent;
  values.forEach((value, index) => {
    const wide = (canvas.width / 2) * (value / most);
    pen.fillRect(canvas.width / 2 + Math.min(0, wide), index * tall, Math.max(1, Math.abs(wide)), Math.max(1, tall - 1));
  });
  return true;
}
