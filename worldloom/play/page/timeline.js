// The tree of moments: how far from the beginning goes to the right, each branch has a lane, the way to here is strong.

import { clamp, colors, count, freshCanvas, make } from "./dom.js";

const EDGE = 14;
const TALLEST = 22;
const LOWEST = 7;
const FEWEST_STEPS = 24; // a walk of three steps should not fill the whole width
const LIST_EVERY = 500;
const MOST_LISTED = 200;

export class Timeline {
  /** `listeners.preview(number)` while something is dragged, `listeners.go(number)` when it was chosen. */
  constructor(canvas, list, details, listeners) {
    Object.assign(this, { canvas, list, details, listeners, walk: null, dragged: null, listed: -1 });
    canvas.addEventListener("pointerdown", (event) => this.grab(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.drop());
    canvas.addEventListener("keydown", (event) => this.key(event));
    details.addEventListener("toggle", () => this.drawList(true));
    new ResizeObserver(() => this.walk && this.draw()).observe(canvas);
  }

  configure(walk) {
    this.walk = walk;
    this.listed = -1;
  }

  // Where things lie

  x(steps) {
    return EDGE + ((this.width - 2 * EDGE) * steps) / Math.max(FEWEST_STEPS, this.walk.steps);
  }

  y(lane) {
    return EDGE + (lane + 0.5) * this.tall - this.scrolled;
  }

  place(number) {
    const moment = this.walk.moments.get(number);
    return [this.x(moment.steps), this.y(moment.lane)];
  }

  measure() {
    const lanes = Math.max(1, this.walk.lanes.length);
    const room = this.height - 2 * EDGE;
    this.tall = clamp(room / lanes, LOWEST, TALLEST);
    const lane = this.walk.moments.get(this.walk.shown)?.lane ?? 0;
    this.scrolled = clamp((lane + 0.5) * this.tall - room / 2, 0, Math.max(0, lanes * this.tall - room));
    if (lanes * this.tall < room) this.scrolled = (lanes * this.tall - room) / 2;
  }

  // Drawing

  draw() {
    const { pen, width, height } = freshCanvas(this.canvas);
    Object.assign(this, { width, height });
    this.measure();
    this.drawTicks(pen);
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, width, height - EDGE); // lanes that are scrolled away do not run through the numbers
    pen.clip();
    this.walk.lanes.forEach((lane, index) => this.drawLane(pen, lane, index));
    this.drawPath(pen);
    for (const number of this.walk.marks) this.drawMark(pen, number);
    this.drawHere(pen);
    pen.restore();
    this.tell();
    this.drawList();
  }

  drawTicks(pen) {
    const most = Math.max(FEWEST_STEPS, this.walk.steps);
    const every = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((each) => most / each <= 10) ?? 10_000;
    pen.font = "10px system-ui, sans-serif";
    pen.textAlign = "center";
    for (let steps = 0; steps <= most; steps += every) {
      pen.fillStyle = colors.line;
      pen.fillRect(Math.round(this.x(steps)), 0, 1, this.height - 13);
      pen.fillStyle = colors.muted;
      pen.fillText(String(steps), this.x(steps), this.height - 3);
    }
  }

  drawLane(pen, { from, numbers, plan }, index) {
    if (!numbers.length) return;
    pen.strokeStyle = plan ? colors.line : colors.muted;
    pen.lineWidth = plan ? 1.5 : 2;
    pen.beginPath();
    this.join(pen, from, index, numbers[0]);
    pen.lineTo(...this.place(numbers.at(-1)));
    pen.stroke();
    if (numbers.length > 1 || plan) return;
    pen.fillStyle = colors.muted;
    this.dot(pen, ...this.place(numbers[0]), 2.5);
  }

  /** A soft bend from the moment at which a branch leaves. */
  join(pen, from, lane, first) {
    const [toX, toY] = this.place(first);
    if (!this.walk.moments.has(from) || this.walk.moments.get(from).lane === lane) {
      pen.moveTo(toX, toY);
      return;
    }
    const [fromX, fromY] = this.place(from);
    pen.moveTo(fromX, fromY);
    pen.bezierCurveTo((fromX + toX) / 2, fromY, (fromX + toX) / 2, toY, toX, toY);
  }

  drawPath(pen) {
    const path = this.walk.path();
    if (!path.length) return;
    pen.strokeStyle = colors.accent;
    pen.lineWidth = 3;
    pen.lineCap = "round";
    pen.beginPath();
    pen.moveTo(...this.place(path[0]));
    let lane = this.walk.moments.get(path[0]).lane;
    path.forEach((number, index) => {
      const moment = this.walk.moments.get(number);
      if (moment.lane !== lane) {
        pen.lineTo(...this.place(path[index - 1]));
        this.join(pen, path[index - 1], moment.lane, number);
      }
      lane = moment.lane;
    });
    pen.lineTo(...this.place(path.at(-1)));
    pen.stroke();
  }

  drawMark(pen, number) {
    const { kind } = this.walk.moments.get(number);
    const [x, y] = this.place(number);
    pen.fillStyle = kind === "edit" ? colors.edit : colors.look;
    if (kind === "edit") {
      pen.fillRect(x - 4, y - 4, 8, 8);
    } else this.dot(pen, x, y, kind === "look" ? 4.5 : 2.5);
  }

  drawHere(pen) {
    if (!this.walk.moments.has(this.walk.shown)) return;
    const [x, y] = this.place(this.walk.shown);
    pen.fillStyle = colors.surface;
    this.dot(pen, x, y, 7.5);
    pen.fillStyle = colors.accent;
    this.dot(pen, x, y, 5.5);
  }

  dot(pen, x, y, radius) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.fill();
  }

  // Words for those who do not see it

  tell() {
    const moment = this.walk.moments.get(this.walk.shown);
    if (!moment) return;
    const { canvas } = this;
    canvas.setAttribute("aria-valuemax", String(this.walk.steps));
    canvas.setAttribute("aria-valuenow", String(moment.steps));
    const text = `step ${moment.steps}, branch ${moment.lane + 1} of ${this.walk.lanes.length}`;
    if (canvas.getAttribute("aria-valuetext") !== text) canvas.setAttribute("aria-valuetext", text);
  }

  drawList(now = false) {
    if (!this.details.open || (!now && this.listed === this.walk.version)) return;
    if (!now) {
      // While one plays, the list would change under the finger with every step.
      this.waiting ??= setTimeout(() => {
        this.waiting = null;
        this.drawList(true);
      }, LIST_EVERY);
      return;
    }
    this.listed = this.walk.version;
    const focused = document.activeElement?.dataset?.lane;
    const items = this.walk.lanes.slice(-MOST_LISTED).map((lane) => this.item(lane, this.walk.lanes.indexOf(lane)));
    this.list.replaceChildren(...items);
    if (focused) this.list.querySelector(`[data-lane="${focused}"]`)?.focus();
  }

  item(lane, index) {
    const last = this.walk.moments.get(lane.numbers.at(-1));
    const from = this.walk.moments.get(lane.from);
    const here = this.walk.moments.get(this.walk.shown)?.lane === index;
    const begins = from ? `leaves after step ${from.steps}` : "from the beginning";
    const what = lane.plan ? "What if" : "Branch";
    const text = `${what} ${index + 1}: ${begins}, ${count(lane.numbers.length, "moment")}, to step ${last.steps}`;
    const button = make("button", { type: "button", onclick: () => this.listeners.go(last.number) }, text);
    button.dataset.lane = String(index);
    if (here) button.setAttribute("aria-current", "true");
    return make("li", {}, button);
  }

  // Hands and keys

  grab(event) {
    // The picture keeps the keyboard: after a click here one goes on playing with the arrow keys.
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.dragged = this.nearest(event);
    if (this.dragged !== null) this.listeners.preview(this.dragged);
  }

  drag(event) {
    if (this.dragged === null) return;
    const number = this.nearest(event);
    if (number === this.dragged) return;
    this.dragged = number;
    this.listeners.preview(number);
  }

  drop() {
    const number = this.dragged;
    this.dragged = null;
    if (number !== null) this.listeners.go(number);
  }

  /** The moment nearest to a point. Up and down counts double, because lanes are what one aims at. */
  nearest({ offsetX, offsetY }) {
    const steps = Math.round(((offsetX - EDGE) / (this.width - 2 * EDGE)) * Math.max(FEWEST_STEPS, this.walk.steps));
    let best = null;
    this.walk.lanes.forEach(({ numbers }, lane) => {
      if (!numbers.length) return;
      const number = this.walk.nearest(lane, steps);
      const [x, y] = this.place(number);
      const distance = Math.hypot(x - offsetX, 2 * (y - offsetY));
      if (best === null || distance < best.distance) best = { distance, number };
    });
    return best?.number ?? null;
  }

  key(event) {
    const number = this.walk?.shown;
    const moment = this.walk?.moments.get(number);
    if (!moment || event.ctrlKey || event.metaKey || event.altKey) return;
    const path = this.walk.path();
    const to = {
      ArrowLeft: () => this.walk.before(number), ArrowRight: () => this.walk.after(number),
      ArrowUp: () => this.walk.beside(number, -1), ArrowDown: () => this.walk.beside(number, 1),
      Home: () => path[0], End: () => this.walk.lanes[moment.lane].numbers.at(-1),
    }[event.key];
    if (!to) return;
    event.preventDefault();
    event.stopPropagation();
    const found = to();
    if (found !== null && found !== number) this.listeners.go(found);
  }
}
