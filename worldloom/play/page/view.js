// What is on the page: the picture and its numbers with every frame, everything slower a little later.

import { find, setText, show } from "./dom.js";
import { SPEEDS } from "./loop.js";
import { showPersistence, showResidual, showTrust } from "./meters.js";

const SLOW_THINGS_EVERY = 100; // ms: curves and timeline need not follow every frame
const LIKELY_OVER = 0.5;

export class View {
  /** `parts` are those of the page that draw, and the state they draw. */
  constructor(parts) {
    Object.assign(this, parts);
    this.times = [];
    this.asked = false;
    this.slow = null;
  }

  /** The times of a step whose picture is yet to be drawn. */
  expect(times) {
    this.times.push(times);
  }

  redraw() {
    if (this.asked) return;
    this.asked = true;
    // A hidden page gets no frames, but its numbers should be right when one comes back to it.
    if (document.hidden) setTimeout(() => this.draw(), 100);
    else requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.asked = false;
    const { state, screen, walk } = this;
    const moment = state.moment;
    if (!moment) return;
    if (this.isDream() && this.connection.open) this.fetching.complete(moment, state.facts.pictures[0]?.key, screen.roles);
    screen.draw(walk.picturesOf(moment.number));
    this.numbers.draw(moment.vectors, screen.reality ? moment.real : null);
    this.stopwatch.draw(this.times.splice(0));
    state.framesDrawn += 1;
    this.slow ??= setTimeout(() => this.drawSlowThings(), this.loop.playing ? SLOW_THINGS_EVERY : 0);
  }

  drawSlowThings() {
    this.slow = null;
    const { state } = this;
    const moment = state.moment;
    if (!moment) return;
    Object.assign(state, { trust: moment.trust, residual: moment.residual ?? {}, persistence: moment.persistence ?? {} });
    this.curves.draw(this.walk.path());
    if (this.isDream()) {
      this.timeline.draw();
      showTrust(moment.trust, state.facts.trust?.promise ?? null, moment.blind);
      showResidual(moment);
      showPersistence(moment);
    }
    state.controls.showDone(moment.action);
    setText(find("where"), `Step ${moment.steps.toLocaleString("en")}`);
    this.showHint();
  }

  showHint() {
    const { state, loop, paint, whatif } = this;
    if (!state.moment) return;
    const over = (state.moment.signals?.terminated ?? 0) > LIKELY_OVER && this.isDream();
    const text = over ? "The model thinks that the episode ended here" : loop.started ? "" : beginHint();
    setText(find("hint"), text);
    show(find("hint"), text !== "" && !paint.active && !whatif.open && find("lost").hidden && find("over").hidden);
  }

  showPlaying() {
    const { playing, by } = this.loop;
    const text = playing ? "Pause" : "Play";
    setText(find("live-text"), text);
    find("live").setAttribute("aria-label", text);
    find("live-icon").setAttribute("href", playing ? "#icon-pause" : "#icon-play");
    find("agent").checked = by === "agent";
    find("recording").checked = by === "recording";
    this.showHint();
  }

  showSpeed() {
    const speed = SPEEDS[Number(find("speed").value)];
    const text = speed === Infinity ? "fastest" : `${speed}×`;
    setText(find("speed-text"), text);
    find("speed").setAttribute("aria-valuetext", speed === Infinity ? "as fast as it goes" : `${speed} times`);
    this.loop.setSpeed(speed);
  }

  showConnection(name, text) {
    this.state.connected = name === "open";
    find("connection").dataset.state = name;
    setText(find("connection-text"), { open: "Connected", connecting: "Connecting" }[name] ?? "Not connected");
    const lost = name === "waiting" || name === "closed";
    if (lost) this.loop.pause();
    if (lost) setText(find("lost-text"), text);
    if (lost || name === "open") show(find("lost"), lost);
  }
}

const beginHint = () => (matchMedia("(pointer: coarse)").matches ? "Play, or touch a key for one step" : "Space plays, a key does one step");
