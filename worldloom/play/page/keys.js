// Keys, buttons, sliders and a gamepad become one action.

const WORDS = [
  [/noop|stay|idle|none|still|nothing/, "."],
  [/left/, "ArrowLeft"], [/right/, "ArrowRight"],
  [/up|forward|gas|accel|jump|north/, "ArrowUp"], [/down|back|brake|south/, "ArrowDown"],
  [/fire|shoot|pick|use|toggle|attack/, "f"],
];
const LETTERS = { a: "ArrowLeft", d: "ArrowRight", w: "ArrowUp", s: "ArrowDown" };
const PAIRS = [["ArrowLeft", "ArrowRight"], ["ArrowDown", "ArrowUp"], ["j", "l"], ["k", "i"]];
const SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

export class Keys {
  constructor(box, space, onPress) {
    this.box = box;
    this.space = space;
    this.onPress = onPress;
    this.held = new Map();
    this.order = 0;
    this.sliders = [];
    box.replaceChildren();
    if (space.kind === "discrete") this.makeChoices();
    else this.makeSliders();
  }

  name(i) {
    return (this.space.names && this.space.names[i]) || `${this.space.kind === "discrete" ? "choice" : "axis"} ${i + 1}`;
  }

  makeChoices() {
    this.keys = new Map();
    this.rest = 0;
    for (let i = 0; i < this.space.size; i++) {
      const found = WORDS.find(([words]) => words.test(this.name(i).toLowerCase()));
      const key = found && !this.keys.has(found[1]) ? found[1] : null;
      if (key) this.keys.set(key, i);
      if (key === ".") this.rest = i;
      if (i < 9) this.keys.set(String(i + 1), i);
      const button = document.createElement("button");
      button.dataset.choice = i;
      button.textContent = `${this.name(i)} `;
      const sign = document.createElement("kbd");
      sign.textContent = key ? SIGNS[key] || key : i + 1;
      button.append(sign);
      button.onpointerdown = (event) => { button.setPointerCapture(event.pointerId); this.press(`button ${i}`, i); };
      button.onpointerup = button.onpointercancel = () => this.release(`button ${i}`);
      button.onkeydown = (event) => { if (event.key === "Enter" && !event.repeat) this.press(`button ${i}`, i); };
      button.onkeyup = (event) => { if (event.key === "Enter") this.release(`button ${i}`); };
      this.box.append(button);
    }
  }

  makeSliders() {
    for (let i = 0; i < this.space.size; i++) {
      const label = document.createElement("label");
      const slider = document.createElement("input");
      const value = document.createElement("output");
      Object.assign(slider, { type: "range", min: -1, max: 1, step: 0.05, value: 0 });
      slider.oninput = () => { value.textContent = Number(slider.value).toFixed(2); };
      slider.ondblclick = () => { slider.value = 0; slider.oninput(); };
      label.append(this.name(i), slider, value);
      slider.oninput();
      this.sliders.push(slider);
      this.box.append(label);
    }
  }

  meaning(key) {
    const known = LETTERS[key.toLowerCase()] || key;
    if (this.space.kind === "discrete") return this.keys.get(known);
    const pair = PAIRS.findIndex((pair) => pair.includes(known));
    return pair >= 0 && pair < this.space.size ? [pair, PAIRS[pair].indexOf(known) * 2 - 1] : undefined;
  }

  down(key) {
    const meaning = this.meaning(key);
    if (meaning === undefined) return false;
    if (!this.held.has(key)) this.press(key, meaning);
    return true;
  }

  press(name, meaning) {
    this.held.set(name, { meaning, order: ++this.order });
    this.show();
    this.onPress();
  }

  release(name) {
    if (this.held.delete(name)) this.show();
  }

  releaseAll() {
    this.held.clear();
    this.show();
  }

  get anything() {
    return this.held.size > 0 || this.gamepad() !== null;
  }

  action() {
    const pad = this.gamepad();
    if (this.space.kind === "discrete") {
      const last = [...this.held.values()].sort((a, b) => b.order - a.order)[0];
      if (last) return last.meaning;
      return pad && pad.choice !== undefined ? pad.choice : this.rest;
    }
    const values = this.sliders.map((slider) => Number(slider.value));
    for (const { meaning: [axis, sign] } of this.held.values()) values[axis] = sign;
    if (pad) pad.axes.forEach((value, i) => { if (i < values.length) values[i] = value; });
    return values;
  }

  gamepad() {
    const pad = [...(navigator.getGamepads ? navigator.getGamepads() : [])].find(Boolean);
    if (!pad) return null;
    const axes = pad.axes.map((value, i) => (Math.abs(value) < 0.15 ? 0 : i % 2 ? -value : value));
    const pressed = pad.buttons.findIndex((button) => button.pressed);
    if (this.space.kind !== "discrete") return axes.some(Boolean) ? { axes } : null;
    const key = axes[0] < -0.4 ? "ArrowLeft" : axes[0] > 0.4 ? "ArrowRight" : axes[1] > 0.4 ? "ArrowUp" : axes[1] < -0.4 ? "ArrowDown" : null;
    const choice = key ? this.keys.get(key) : pressed >= 0 ? this.keys.get(pressed === 0 ? "f" : String(pressed + 1)) : undefined;
    return choice === undefined ? null : { axes, choice };
  }

  show() {
    const now = this.held.size ? this.action() : null;
    for (const button of this.box.querySelectorAll("button")) button.classList.toggle("held", Number(button.dataset.choice) === now);
  }
}
