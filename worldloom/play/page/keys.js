// Which keys are held, whatever they mean: of the keyboard, of the buttons on the screen, of a gamepad.

/** A key's name: "a", "1", "ArrowLeft". Letters of other alphabets go by where the key lies. */
export function keyName(event) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
  if (digit && !event.shiftKey) return digit[1];
  if (event.key.length > 1) return event.key;
  const letter = event.key.toLowerCase();
  const place = /^Key([A-Z])$/.exec(event.code);
  return /[a-z]/.test(letter) || !place ? letter : place[1].toLowerCase();
}

const ARROWS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

/** How a key is written on a button. */
export const keyLabel = (key) => ARROWS[key] ?? key.toUpperCase();

/** How a key is said to somebody who cannot see the arrow. */
export const keyWord = (key) => (key.startsWith("Arrow") ? `${key.slice(5).toLowerCase()} arrow` : key.toUpperCase());

/** Letters that stand for something else on this page, and the keys that always steer. */
export const SHORTCUTS = new Set([..."gprhnvxl"]);
export const STEERING = {
  left: ["ArrowLeft", "a"], right: ["ArrowRight", "d"], up: ["ArrowUp", "w"], down: ["ArrowDown", "s"],
};

/** Held keys in the order in which they went down, and those that were too quick for a tick. */
export class Held {
  constructor() {
    this.down = new Map();
    this.quick = new Map();
    this.counted = new Set();
    this.order = 0;
  }

  press(key) {
    this.order += 1;
    this.down.set(key, this.order);
    this.counted.delete(key);
  }

  release(key) {
    if (this.down.has(key) && !this.counted.has(key)) this.quick.set(key, this.down.get(key));
    this.down.delete(key);
    this.counted.delete(key);
  }

  releaseAll() {
    this.down.clear();
    this.quick.clear();
    this.counted.clear();
  }

  /** What counts now: held, or pressed and let go since this was asked last. */
  take() {
    const found = this.look();
    this.quick.clear();
    for (const key of this.down.keys()) this.counted.add(key);
    return found;
  }

  /** As `take`, without forgetting the quick ones. */
  look() {
    return new Map([...this.quick, ...this.down]);
  }
}

/** What holds keys and shows which: `highlight` is the kind's own. `pressed` is told of every key that goes down. */
export class Controls {
  constructor(pressed) {
    this.held = new Held();
    this.pressed = pressed;
  }

  press(key) {
    this.held.press(key);
    this.highlight();
    this.pressed();
  }

  release(key) {
    this.held.release(key);
    this.highlight();
  }

  releaseAll() {
    this.held.releaseAll();
    this.highlight();
  }
}

/** Makes a button act as a key for as long as a finger or the mouse holds it, and for a moment by Enter or Space. */
export function holdable(button, press, release) {
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    button.setPointerCapture(event.pointerId);
    press();
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(name, release);
  button.addEventListener("click", (event) => {
    if (event.detail !== 0) return;
    press();
    release();
  });
  // A long press on a phone must not open a menu.
  button.addEventListener("contextmenu", (event) => event.preventDefault());
}
