// The keyboard and the gamepad as a whole: what belongs to the world, what to the page, and what to a field in focus.

import { keyName } from "./keys.js";

const REPEAT_AFTER = 320;
const AT_REST = { axes: [0, 0, 0, 0], buttons: [] };

/** Which key it is, whatever it is called now. Keyboards on screens do not say. */
const placeOf = (event) => event.code || event.key;

/** Whether the element in focus needs this key for itself. */
function keepsKey(target, key) {
  if (!(target instanceof Element)) return false;
  if (target.matches("select, textarea, input:not([type=range]):not([type=radio]):not([type=checkbox]):not([type=file])")) return true;
  const moves = /^(Arrow|Home|End|Page)/.test(key);
  if (target.matches("input[type=range]")) return moves;
  if (target.matches("input[type=radio]")) return moves || key === " ";
  return target.matches("button, a, summary, input[type=checkbox], input[type=file]") && (key === " " || key === "Enter");
}

/** Calls `actions[key]`, or the controls of the world for the keys that they know. */
export class Shortcuts {
  constructor({ controls, actions, rewind, blocked }) {
    Object.assign(this, { controls, actions, rewind, blocked, padButtons: new Map() });
    this.names = new Map(); // what a held key was called when it went down, by its place on the keyboard
    addEventListener("keydown", (event) => this.down(event));
    addEventListener("keyup", (event) => this.up(event));
    addEventListener("blur", () => this.letGo());
    document.addEventListener("click", dropFocus);
    addEventListener("gamepadconnected", () => this.pollPads());
  }

  down(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    const key = keyName(event);
    if (document.querySelector("dialog[open]") || keepsKey(event.target, event.key)) return;
    if (key === "Backspace") this.backspace(event);
    else if (this.controls()?.knows(key)) this.control(event, key);
    else if (Object.hasOwn(this.actions, key)) {
      event.preventDefault();
      if (!event.repeat) this.actions[key](event);
    }
  }

  control(event, key) {
    if (this.blocked()) return;
    event.preventDefault();
    if (event.repeat) return;
    this.names.set(placeOf(event), key);
    this.controls().press(key);
  }

  backspace(event) {
    event.preventDefault();
    if (!event.repeat) this.rewind.press(event.shiftKey ? 10 : 1);
  }

  /** With Shift, "1" goes down and "!" comes up, or the other way round. */
  up(event) {
    if (event.key === "Backspace") this.rewind.release();
    const key = this.names.get(placeOf(event));
    this.names.delete(placeOf(event));
    if (key !== undefined) this.controls()?.release(key);
  }

  letGo() {
    this.names.clear();
    this.rewind.release();
    this.controls()?.releaseAll();
  }

  /** A gamepad can only be asked how it is; that is done once a frame while there is one. */
  pollPads() {
    if (this.polling) return;
    const poll = () => {
      const pads = navigator.getGamepads().filter(Boolean);
      this.polling = pads.length > 0;
      if (this.polling) {
        this.readPad(pads[0]);
        requestAnimationFrame(poll);
      } else this.padGone();
    };
    poll();
  }

  /** What it held when it went, it would hold for ever. */
  padGone() {
    this.letGo();
    this.controls()?.gamepad(AT_REST);
  }

  readPad(pad) {
    if (!this.blocked()) this.controls()?.gamepad(pad);
    this.edge(pad, 9, () => this.actions[" "]());
    this.edge(pad, 4, () => this.rewind.press(1), () => this.rewind.release());
    this.edge(pad, 5, () => this.actions["."]());
  }

  edge(pad, index, pressed, released = () => {}) {
    const now = pad.buttons[index]?.pressed ?? false;
    if (now === (this.padButtons.get(index) ?? false)) return;
    this.padButtons.set(index, now);
    if (now) pressed();
    else released();
  }
}

/** Rewinding goes on for as long as its key or button is held. */
export class Rewind {
  /** `listeners`: back(steps), busy(), held(boolean), period(). */
  constructor(listeners) {
    this.listeners = listeners;
    this.timer = null;
  }

  press(steps) {
    if (this.timer !== null) return;
    this.listeners.held(true);
    this.listeners.back(steps);
    const again = () => {
      // Held down, it goes no faster than the server answers.
      if (!this.listeners.busy()) this.listeners.back(steps);
      this.timer = setTimeout(again, this.listeners.period());
    };
    this.timer = setTimeout(again, REPEAT_AFTER);
  }

  release() {
    if (this.timer === null) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.listeners.held(false);
  }
}

/** After a click the keyboard goes back to the world, or Space would press the same button again instead of pausing. */
function dropFocus(event) {
  const { target, pointerType } = event;
  if (!pointerType || !(target instanceof Element)) return;
  const control = target.closest("button, summary, input[type=checkbox], input[type=radio], input[type=range], label.switch");
  if (control && !control.closest("dialog, [data-painting]")) document.activeElement?.blur();
}
