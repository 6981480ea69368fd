// Actions made of numbers in [-1, 1]: a slider each, pairs of keys, sticks and triggers.

import { brief, clamp, make } from "./dom.js";
import { Controls, STEERING, holdable, keyLabel, keyWord } from "./keys.js";

const PAIRS = [
  [STEERING.left, STEERING.right], [STEERING.down, STEERING.up],
  [["q"], ["e"]], [["j"], ["k"]], [["z"], ["c"]], [["u"], ["o"]], [["t"], ["y"]],
];
const GLIDE = 1.2; // of the range [-1, 1] a second, for numbers that say where and not how hard
const QUIET = 0.12; // a stick never rests at exactly 0

/** What a dimension's range tells: where it rests, and whether it is a place (pixels, metres) or a push. */
function dimension(space, index) {
  const low = space.low?.[index] ?? -1;
  const high = space.high?.[index] ?? 1;
  const place = low >= 0 && high > 2;
  const oneSided = low === 0 && !place;
  const name = space.names?.[index] ?? `number ${index}`;
  return { index, name, low, high, place, oneSided, rest: oneSided ? -1 : 0, value: oneSided ? -1 : 0, minus: [], plus: [] };
}

/** Gas is up and brake is down where they are called so; all others take the next free pair. */
function assign(dimensions) {
  const pairs = [...PAIRS];
  const vertical = pairs[1];
  const pedals = dimensions.filter(({ name, oneSided }) => oneSided && /gas|throttle|accel|brake/i.test(name));
  for (const pedal of pedals) pedal.plus = vertical[/brake/i.test(pedal.name) ? 0 : 1];
  if (pedals.length) pairs.splice(1, 1);
  for (const each of dimensions.filter((one) => !pedals.includes(one))) {
    const [minus, plus] = pairs.shift() ?? [[], []];
    // Places are mostly pixels, whose rows are counted from above.
    const upsideDown = each.place && minus === STEERING.down;
    Object.assign(each, upsideDown ? { minus: plus, plus: minus } : { minus: each.oneSided ? [] : minus, plus });
  }
}

/** The controls of a world whose actions are numbers. */
export class Continuous extends Controls {
  constructor(space, pressed) {
    super(pressed);
    this.dimensions = Array.from({ length: space.size }, (_, index) => dimension(space, index));
    assign(this.dimensions);
    this.sticks = new Map();
    this.when = null;
    this.element = this.draw();
  }

  knows(key) {
    return this.dimensions.some(({ minus, plus }) => minus.includes(key) || plus.includes(key));
  }

  /** The numbers of this tick. */
  take() {
    const now = performance.now();
    const seconds = this.when === null ? 0 : Math.min(0.1, (now - this.when) / 1000);
    this.when = now;
    const counted = this.held.take();
    for (const each of this.dimensions.filter(({ place }) => place)) this.glide(each, counted, seconds);
    return this.dimensions.map((each) => this.valueOf(each, counted));
  }

  glide(each, counted, seconds) {
    const direction = this.direction(each, counted) + (this.sticks.get(each.index) ?? 0);
    if (direction) this.set(each, clamp(each.value + direction * GLIDE * (seconds || 0.05), -1, 1));
  }

  valueOf(each, counted) {
    if (each.place) return each.value;
    const direction = this.direction(each, counted);
    if (direction) return direction;
    return clamp(this.sticks.get(each.index) ?? each.value, -1, 1);
  }

  direction({ index, minus, plus }, counted) {
    const latest = (keys, side) => Math.max(0, ...[...keys, `${side} ${index}`].map((key) => counted.get(key) ?? 0));
    const [down, up] = [latest(minus, "minus"), latest(plus, "plus")];
    return Math.sign(up - down);
  }

  set(each, value) {
    each.value = value;
    each.slider.value = value;
    this.say(each, value);
  }

  say(each, value) {
    const own = ((value + 1) / 2) * (each.high - each.low) + each.low;
    each.output.textContent = brief(own);
    each.slider.setAttribute("aria-valuetext", brief(own));
  }

  rest() {
    for (const each of this.dimensions) this.set(each, each.rest);
  }

  /** Sticks move the first four numbers, triggers the pedals. */
  gamepad({ axes, buttons }) {
    const before = this.sticks.size;
    this.sticks.clear();
    const free = [axes[0], -axes[1], axes[2], -axes[3]];
    for (const each of this.dimensions) {
      const pedal = each.oneSided && buttons[/brake/i.test(each.name) ? 6 : 7];
      const value = pedal ? pedal.value : free.shift() ?? 0;
      if (Math.abs(value) > QUIET) this.sticks.set(each.index, pedal ? value * 2 - 1 : each.place && each.index === 1 ? -value : value);
    }
    if (this.sticks.size && !before) this.pressed();
  }

  draw() {
    const rows = this.dimensions.map((each) => this.row(each));
    const rest = make("button", { type: "button", class: "quiet", onclick: () => this.rest() }, "All to rest");
    return make("div", { class: "continuous" }, ...rows, rest);
  }

  row(each) {
    each.output = make("output", {}, "");
    each.slider = make("input", {
      type: "range", min: "-1", max: "1", step: "0.01", value: String(each.rest), "aria-label": each.name,
    });
    each.slider.addEventListener("input", () => {
      each.value = Number(each.slider.value);
      this.say(each, each.value);
    });
    this.say(each, each.value);
    const name = make("span", { class: "name" }, each.name);
    return make("div", { class: "dimension" }, name, this.side(each, "minus", "−"), each.slider,
      this.side(each, "plus", "+"), each.output);
  }

  side(each, side, sign) {
    const [key] = each[side];
    const label = `${each.name} ${side}${key ? `, key ${keyWord(key)}` : ""}`;
    const button = make("button", { type: "button", class: "key small", "aria-label": label }, key ? keyLabel(key) : sign);
    const own = `${side} ${each.index}`;
    holdable(button, () => this.press(own), () => this.release(own));
    each[`${side}Button`] = button;
    return button;
  }

  highlight() {
    const counted = this.held.look();
    for (const each of this.dimensions) {
      const direction = this.direction(each, counted);
      each.minusButton.toggleAttribute("data-held", direction < 0);
      each.plusButton.toggleAttribute("data-held", direction > 0);
    }
  }

  showDone(action) {
    if (action === null) return;
    for (const each of this.dimensions) {
      // What is held or was done by somebody else; the slider itself stays where it was put.
      const own = ((action[each.index] + 1) / 2) * (each.high - each.low) + each.low;
      each.output.textContent = brief(own);
    }
  }

  /** All at rest, and each number at its least and at its most. */
  constantPlans(steps, most) {
    const resting = this.dimensions.map(({ rest }) => rest);
    const one = (index, level) => resting.map((rest, each) => (each === index ? level : rest));
    const rows = [resting, ...resting.flatMap((_, index) => [one(index, -1), one(index, 1)])]
      // A pedal at rest is already at its least.
      .filter((row, at, all) => all.findIndex((other) => String(other) === String(row)) === at);
    return rows.slice(0, most).map((row) => ({ label: this.planLabel(row), actions: Array(steps).fill(row) }));
  }

  planLabel(row) {
    const moved = this.dimensions.filter(({ index, rest }) => row[index] !== rest);
    return moved.map(({ index, name }) => `${name} ${row[index] > 0 ? "+" : "−"}`).join(", ") || "all at rest";
  }

  random() {
    return this.dimensions.map(() => Math.random() * 2 - 1);
  }
}
