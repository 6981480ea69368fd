// Choices: which key means which, the buttons on the screen, and what is chosen while several keys are held.

import { make } from "./dom.js";
import { Controls, SHORTCUTS, STEERING, holdable, keyLabel, keyWord } from "./keys.js";

const REST = /^(no[-_ ]?op|no[-_ ]?action|do[-_ ]?nothing|stay|none|nothing|wait|idle|still|coast|pass)$/i;

// Whole words first, so that "pickup" does not go up.
const PARTS = new RegExp(
  "pick[-_ ]?up|drop|toggle|jump|fire|shoot|attack|use|interact|done"
  + "|(?<up>forward|ahead|up|north|accelerate|gas)|(?<down>back|down|south|brake)|(?<left>left|west)|(?<right>right|east)",
  "gi",
);
const UNNAMED = { 2: ["left", "right"], 3: ["left", "down", "right"], 4: ["left", "up", "right", "down"] };
const SPOTS = {
  "": "centre", up: "up", down: "down", left: "left", right: "right",
  "left up": "up-left", "right up": "up-right", "down left": "down-left", "down right": "down-right",
  "up left": "up-left", "up right": "up-right", "left down": "down-left", "right down": "down-right",
};

/** The directions and deeds of which an action's name is made: "UPLEFTFIRE" is up, left and fire. */
export function partsOf(name) {
  if (REST.test(name)) return [];
  return [...name.matchAll(PARTS)].map(({ 0: word, groups }) => {
    const direction = Object.keys(groups).find((each) => groups[each]);
    return direction ?? word.toLowerCase().replace(/[^a-z]/g, "");
  });
}

const hasNames = (names) => names !== null && !names.every((name) => /^\d+$/.test(name));

function choicesOf(space) {
  const named = hasNames(space.names);
  return Array.from({ length: space.size }, (_, index) => {
    const name = named ? space.names[index] : `action ${index}`;
    const parts = named ? partsOf(name) : [UNNAMED[space.size]?.[index]].filter(Boolean);
    const rest = named && REST.test(name);
    return { index, name, parts, rest, direct: index < 9 ? [String(index + 1)] : index === 9 ? ["0"] : [] };
  });
}

/** Gives each deed that is no direction a letter, and each choice that no other keys can reach. */
function assign(choices) {
  const keys = new Map();
  for (const [part, names] of Object.entries(STEERING)) for (const key of names) keys.set(key, part);
  const free = (word) => [...word.replace(/[^a-z]/g, ""), ..."fqeczutoikjyb"]
    .find((letter) => !keys.has(letter) && !SHORTCUTS.has(letter));
  const reachable = new Set();
  for (const choice of choices.filter((each) => !each.rest)) {
    for (const part of choice.parts) {
      if (part in STEERING || [...keys.values()].includes(part)) continue;
      const letter = free(part);
      if (letter) keys.set(letter, part);
    }
    const together = [...choice.parts].sort().join(" ");
    if (!choice.parts.length || reachable.has(together)) {
      const letter = free(/left/i.test(choice.name) ? "q" : /right/i.test(choice.name) ? "e" : choice.name.toLowerCase());
      // Where digits reach everything anyway, letters that mean nothing would only confuse.
      if (letter && /[a-z]/i.test(choice.name) && !/^action \d+$/.test(choice.name)) choice.direct.push(letter);
      choice.parts = [];
    }
    reachable.add(together);
    for (const letter of choice.direct) if (/[a-z]/.test(letter)) keys.set(letter, `choice ${choice.index}`);
  }
  return keys;
}

/** The controls of a world whose actions are choices. */
export class Discrete extends Controls {
  constructor(space, pressed) {
    super(pressed);
    this.choices = choicesOf(space);
    this.keys = assign(this.choices);
    this.last = null;
    this.pad = new Map();
    const rest = this.choices.find((choice) => choice.rest);
    this.rest = rest ? rest.index : "last";
    this.element = this.draw();
  }

  knows(key) {
    return this.keys.has(key) || this.choices.some((choice) => choice.direct.includes(key));
  }

  /** The choice of this tick; null when nothing is held and the world should wait. */
  take() {
    const chosen = this.choose(this.held.take()) ?? this.resting();
    if (chosen !== null) this.last = chosen;
    return chosen;
  }

  resting() {
    if (this.rest === "wait") return null;
    return this.rest === "last" ? this.last ?? 0 : this.rest;
  }

  choose(counted) {
    const parts = new Map();
    let direct = null;
    let latest = 0;
    for (const [key, order] of counted) {
      const choice = this.choices.find((each) => each.direct.includes(key) || key === `choice ${each.index}`);
      if (choice && order > latest) [direct, latest] = [choice.index, order];
      if (!choice && this.keys.has(key)) parts.set(this.keys.get(key), order);
    }
    return direct ?? this.together(parts);
  }

  /** The choice that does most of what is held; of two that do as much, the one that was pressed last. */
  together(parts) {
    let best = null;
    for (const choice of this.choices) {
      if (!choice.parts.length || !choice.parts.every((part) => parts.has(part))) continue;
      const score = choice.parts.length * 1e6 + Math.max(...choice.parts.map((part) => parts.get(part)));
      if (best === null || score > best.score) best = { score, index: choice.index };
    }
    return best?.index ?? null;
  }

  /** Lets a gamepad hold keys: the cross and the stick steer, the buttons do the rest. */
  gamepad({ axes, buttons }) {
    const on = (index) => buttons[index]?.pressed ?? false;
    const wanted = {
      ArrowLeft: axes[0] < -0.5 || on(14), ArrowRight: axes[0] > 0.5 || on(15),
      ArrowUp: axes[1] < -0.5 || on(12), ArrowDown: axes[1] > 0.5 || on(13),
    };
    const deeds = [...this.keys.keys()].filter((key) => !Object.values(STEERING).flat().includes(key));
    deeds.slice(0, 4).forEach((key, index) => { wanted[key] = on(index); });
    for (const [key, now] of Object.entries(wanted)) {
      if (now === (this.pad.get(key) ?? false) || !this.knows(key)) continue;
      this.pad.set(key, now);
      if (now) this.press(key);
      else this.release(key);
    }
  }

  draw() {
    const steering = make("div", { class: "steering" });
    const others = make("div", { class: "deeds" });
    const taken = new Set();
    for (const choice of this.choices) {
      const spot = this.spot(choice);
      const button = this.button(choice);
      if (spot && !taken.has(spot)) {
        taken.add(spot);
        button.dataset.spot = spot;
        steering.append(button);
      } else others.append(button);
    }
    steering.classList.toggle("flat", ![...taken].some((spot) => /up|down/.test(spot)));
    return make("div", { class: "discrete" }, ...[steering, others].filter((part) => part.children.length), this.restField());
  }

  spot(choice) {
    if (choice.rest) return "centre";
    return choice.parts.length ? SPOTS[choice.parts.join(" ")] : undefined;
  }

  keysOf(choice) {
    const keyFor = (part) => [...this.keys].find(([, meant]) => meant === part)?.[0];
    return choice.parts.length ? choice.parts.map(keyFor).filter(Boolean) : choice.direct.slice(-1);
  }

  button(choice) {
    const keys = this.keysOf(choice);
    const hint = make("kbd", { "aria-hidden": "true" }, keys.map(keyLabel).join(""));
    const label = keys.length ? `${choice.name}, key ${keys.map(keyWord).join(" and ")}` : choice.name;
    const made = make("button", { type: "button", class: "key", "aria-label": label }, make("span", {}, choice.name), hint);
    made.dataset.choice = choice.index;
    const key = `choice ${choice.index}`;
    holdable(made, () => this.press(key), () => this.release(key));
    choice.button = made;
    return made;
  }

  restField() {
    const option = (value, text) => make("option", { value: String(value), selected: value === this.rest }, text);
    const select = make("select", { id: "rest" }, option("last", "the last one again"), option("wait", "wait for a key"),
      ...this.choices.map((choice) => option(choice.index, choice.name)));
    select.addEventListener("change", () => {
      this.rest = /^\d+$/.test(select.value) ? Number(select.value) : select.value;
    });
    return make("label", { class: "rest" }, make("span", {}, "When nothing is held"), select);
  }

  highlight() {
    const chosen = this.choose(this.held.look());
    for (const choice of this.choices) choice.button.toggleAttribute("data-held", choice.index === chosen);
  }

  /** Marks what was done last, by whomever. */
  showDone(action) {
    const done = action ? action.indexOf(Math.max(...action)) : -1;
    for (const choice of this.choices) choice.button.toggleAttribute("data-done", choice.index === done);
  }

  /** Plans that hold one action each. */
  constantPlans(steps, most) {
    return this.choices.slice(0, most).map(({ index, name }) => ({ label: name, actions: Array(steps).fill(index) }));
  }

  random() {
    return Math.floor(Math.random() * this.choices.length);
  }
}
