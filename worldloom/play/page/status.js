// The line in which the page says something: gone after a while, or a problem that stays until it is closed.

import { find, setText, show } from "./dom.js";

const SAID_FOR = 5_000;
const EMPTY_FOR = 50; // ms: only a text that changes is read aloud, and the same may be said twice

let speaking = null;
let leaving = null;

function line(text, kind) {
  clearTimeout(leaving);
  clearTimeout(speaking);
  setText(find("status-text"), "");
  speaking = setTimeout(setText, EMPTY_FOR, find("status-text"), text);
  find("status").dataset.kind = kind;
  show(find("status-close"), kind === "problem");
}

/** The text stays while the line fades. */
function leave() {
  clearTimeout(speaking);
  find("status").dataset.kind = "none";
}

/** A line that goes away by itself. */
export function say(text) {
  line(text, "said");
  leaving = setTimeout(hush, SAID_FOR);
}

/** Takes back a line that would have gone away by itself. */
export function hush() {
  if (find("status").dataset.kind === "said") leave();
}

/** A line that stays until it is closed or something else is said. */
export function complain(text) {
  line(text, "problem");
}

find("status-close").addEventListener("click", leave);
