// Playing: a step every tick with the keys that are held; while it is paused, one step for each key. Never more than two
// are on their way at a time.

const MOST_ON_THEIR_WAY = 2;
const MOST_WAITING = 8;
const SHORTEST_TICK = 5; // ms: the server takes 240 messages a second and no more
export const SPEEDS = [0.25, 0.5, 1, 2, 4, Infinity];

export class Loop {
  /** `listeners`: send(fields, times) gives a promise, changed(), problem(error). */
  constructor(listeners) {
    this.listeners = listeners;
    this.controls = null;
    this.fps = 10;
    this.speed = 1;
    this.by = "player";
    Object.assign(this, { playing: false, started: false, blocked: false, held: false });
    Object.assign(this, { onTheirWay: 0, waiting: [], keyDown: null, next: 0, timer: null });
  }

  configure(controls, fps) {
    this.pause();
    Object.assign(this, { controls, fps, started: false, by: "player" });
    this.listeners.changed();
  }

  get period() {
    return Math.max(SHORTEST_TICK, 1000 / (this.fps * this.speed));
  }

  // What a person wants

  play() {
    if (this.blocked || !this.controls) return;
    this.playing = true;
    this.started = true;
    this.next = performance.now();
    this.schedule();
    this.listeners.changed();
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = null;
    this.drop();
    if (!this.playing) return;
    this.playing = false;
    this.listeners.changed();
  }

  /** Forgets the keys whose steps were not sent yet: they were meant for another moment. */
  drop() {
    this.waiting = [];
    this.keyDown = null;
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  setSpeed(speed) {
    this.speed = speed;
    this.next = performance.now();
    if (this.playing) this.schedule();
  }

  /** Who chooses the actions from now on; an agent begins at once. */
  setBy(by) {
    this.by = by;
    if (by !== "player" && !this.playing) this.play();
    this.listeners.changed();
  }

  /** A key went down: it takes over from an agent, or does one step where nothing runs by itself. */
  pressed(when = performance.now()) {
    if (this.blocked) return;
    this.keyDown ??= when;
    if (this.by !== "player") this.setBy("player");
    if (!this.playing) this.once();
  }

  /** One step with what is held, or with the resting action. */
  once() {
    if (this.blocked || !this.controls) return;
    this.started = true;
    const fields = this.fields();
    if (fields === null) return;
    if (this.waiting.length < MOST_WAITING) this.waiting.push(fields);
    this.flush();
  }

  /** While somebody rewinds, time stands still. */
  hold(held) {
    this.held = held;
    this.next = performance.now();
  }

  // What the clock does

  schedule() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tick(), Math.max(0, this.next - performance.now()));
  }

  tick() {
    if (!this.playing) return;
    const now = performance.now();
    // A clock that fell behind does not hurry to catch up.
    this.next = Math.max(this.next + this.period, now);
    if (this.onTheirWay < MOST_ON_THEIR_WAY) this.act();
    this.schedule();
  }

  act() {
    if (this.held || this.blocked) return;
    const fields = this.fields();
    if (fields !== null) this.send(fields);
  }

  /** The next step; null when the world waits for a key. */
  fields() {
    if (this.by !== "player") return { by: this.by };
    const action = this.controls.take();
    return action === null ? null : { action };
  }

  flush() {
    while (this.waiting.length && this.onTheirWay < MOST_ON_THEIR_WAY) this.send(this.waiting.shift());
  }

  send(fields) {
    const times = { sent: performance.now(), key: this.keyDown };
    this.keyDown = null;
    this.onTheirWay += 1;
    this.listeners.send(fields, times).catch((error) => {
      const chosenByOthers = this.by !== "player";
      this.pause();
      if (chosenByOthers) this.setBy("player");
      this.listeners.problem(error);
    }).finally(() => {
      this.onTheirWay -= 1;
      this.flush();
    });
  }
}
