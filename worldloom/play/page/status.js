// The line in which the page says something: gone after a while, or a problem that stays until it is closed.

import { find, setText, show } from "./dom.js";

const SAID_FOR = 5_000;

let timer = null;

function line(text, kind) {
  clearTimeout(timer);
  setText(find("status-text"), text);
  find("status").dataset.kind = kind;
  show(find("status-close"), kind === "problem");
}

/** A line that goes away by itself. */
export function say(text) {
  line(text, "said");
  timer = setTimeout(hush, SAID_FOR);
}

/** Takes back a line that would have gone away by itself. */
export function hush() {
  if (find("status").dataset.kind === "said") find("status").dataset.kind = "none";
}

/** A line that stays until it is closed or something else is said. */
export function complain(text) {
  line(text, "problem");
}

find("status-close").addEventListener("click", () => { find("status").dataset.kind = "none"; });
