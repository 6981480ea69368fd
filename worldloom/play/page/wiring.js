// Which button and which key does what.

import { find, onScheme, setText } from "./dom.js";
import { holdable } from "./keys.js";
import { SPEEDS } from "./loop.js";
import { Shortcuts } from "./shortcuts.js";

const PRESENT_FOR = 120_000;
const LATENCY_EVERY = 250;

/** Gives every button, field and key of the page what it does. `page` holds the parts and the deeds of the page. */
export function wire(page) {
  wireKeys(page);
  wireButtons(page);
  wireFields(page);
  document.addEventListener("visibilitychange", () => document.hidden && page.loop.pause());
  onScheme(page.redraw);
  stayWhilePresent(page.connection);
  setInterval(() => setText(find("latency"), page.stopwatch.text()), LATENCY_EVERY);
}

function wireKeys({ state, walk, loop, rewind, whatif, paint, ...deeds }) {
  const { goTo, tryPlans, anchor, begin, openHelp, isDream } = deeds;
  new Shortcuts({
    controls: () => state.controls,
    blocked: () => loop.blocked,
    rewind,
    actions: {
      " ": () => (whatif.open ? whatif.toggle() : loop.toggle()),
      Enter: () => loop.once(),
      ",": () => goTo(walk.before(walk.shown)),
      ".": () => goTo(walk.after(walk.shown)),
      PageUp: () => goTo(walk.beside(walk.shown, -1)),
      PageDown: () => goTo(walk.beside(walk.shown, 1)),
      Escape: () => { whatif.close(); paint.stop(); },
      g: tryPlans,
      p: () => isDream() && paint.toggle(),
      r: () => toggleBox("reality"),
      h: () => isDream() && toggleBox("heat"),
      l: anchor,
      x: toggleCompany,
      v: () => faster(deeds.showSpeed),
      n: begin,
      "?": openHelp,
    },
  });
}

function wireButtons({ walk, loop, rewind, whatif, connection, ...deeds }) {
  const { goTo, goBack, anchor, tryPlans, train, begin, openHelp, showPlansAgain } = deeds;
  const actions = {
    live: () => loop.toggle(), forward: () => goTo(walk.after(walk.shown)), rewind10: () => goBack(10),
    anchor, whatif: tryPlans, "whatif-again": showPlansAgain, train, "over-new": begin, help: openHelp,
    reconnect: () => connection.connect(),
  };
  for (const [id, action] of Object.entries(actions)) find(id).addEventListener("click", action);
  holdable(find("rewind"), () => rewind.press(1), () => rewind.release());
}

function wireFields({ loop, sendOptions, showSpeed, begin, redraw }) {
  const company = (by) => (event) => loop.setBy(event.target.checked ? by : "player");
  const actions = { reality: sendOptions, heat: sendOptions, agent: company("agent"), recording: company("recording") };
  for (const [id, action] of Object.entries(actions)) find(id).addEventListener("change", action);
  find("speed").addEventListener("input", showSpeed);
  find("start").addEventListener("change", () => find("start").blur());
  find("numbers-panel").addEventListener("toggle", redraw);
  find("beginning").addEventListener("submit", (event) => {
    event.preventDefault();
    find("seed").blur();
    begin();
  });
}

function toggleBox(id) {
  const box = find(id);
  if (box.closest("[hidden]")) return;
  box.checked = !box.checked;
  box.dispatchEvent(new Event("change"));
}

function toggleCompany() {
  const id = find("agent-field").hidden ? "recording" : "agent";
  if (!find(`${id}-field`).hidden) toggleBox(id);
}

function faster(showSpeed) {
  const slider = find("speed");
  slider.value = String((Number(slider.value) + 1) % SPEEDS.length);
  showSpeed();
}

/** A page that is read or looked at, though nothing is asked for, keeps its seat; one that was left does not. */
function stayWhilePresent(connection) {
  let present = performance.now();
  for (const name of ["pointermove", "keydown", "scroll", "touchstart"]) {
    addEventListener(name, () => { present = performance.now(); }, { passive: true, capture: true });
  }
  setInterval(() => {
    const here = !document.hidden && performance.now() - present < PRESENT_FOR;
    if (here && connection.open) connection.ask("ping").catch(() => {});
  }, PRESENT_FOR);
}
