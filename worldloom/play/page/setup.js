// What a page of this model looks like: its name, where to begin, which fields it has, and the list of its keys.

import { find, make, setText, show } from "./dom.js";
import { keyLabel } from "./keys.js";

const MOST_LISTED = 20;

/** What decides how the page is built. */
export function shapeOf({ mode, env, model, action, pictures, vectors, signals, fps }) {
  return JSON.stringify([mode, env, model, action, pictures, vectors, signals, fps]);
}

/** Shows what belongs to a dream or to the real world, and to a model with pictures or without. */
export function setUp(facts, controls) {
  const pictures = facts.mode === "dream" && facts.pictures.length > 0;
  document.body.dataset.mode = facts.mode;
  for (const element of document.querySelectorAll("[data-only]")) show(element, element.dataset.only === facts.mode);
  for (const id of ["paint-panel", "record-png", "record-mp4"]) show(find(id), pictures);
  setText(find("model"), describeModel(facts));
  document.title = `${facts.model?.run ?? facts.env ?? "play"}: worldloom`;
  find("keys").replaceChildren(controls.element);
  show(find("train"), facts.trains);
  offerPlans(facts);
  offerStarts(facts);
  listActionKeys(facts, controls);
}

function describeModel({ mode, env, model }) {
  if (mode === "real") return `the real ${env ?? "environment"}`;
  if (!model) return "";
  return [model.run, model.family, `step ${model.step.toLocaleString("en")}`, model.hash.slice(0, 8)].join(" · ");
}

/** Vectors take the place of the picture where there is none. Gives the element for them. */
export function placeNumbers({ pictures, vectors }) {
  const onStage = !pictures.length && vectors.length > 0;
  show(find("numbers-stage"), onStage);
  show(find("screen"), pictures.length > 0);
  show(find("numbers-panel"), !onStage && vectors.length > 0);
  return find(onStage ? "numbers-stage" : "numbers-list");
}

function offerPlans({ action, limits }) {
  const held = action.kind === "discrete" ? "Each action, held" : "Each number low, middle and high";
  setText(find("plans-constant-text"), held);
  find("plan-steps").max = String(limits.plan_steps || 1);
}

function offerStarts({ starts }) {
  find("start").replaceChildren(...starts.map(({ name, label }) => make("option", { value: name }, label)));
  show(find("start").parentElement, starts.length > 0);
}

function listActionKeys({ action }, controls) {
  const rows = action.kind === "discrete"
    ? controls.choices.map((choice) => [controls.keysOf(choice).concat(choice.direct.slice(0, 1)), choice.name])
    : controls.dimensions.map(({ minus, plus, name }) => [[minus[0], plus[0]], name]);
  find("help-actions").replaceChildren(...rows.slice(0, MOST_LISTED).map(([keys, name]) => make("div", {},
    make("dt", {}, ...[...new Set(keys)].filter(Boolean).map((key) => make("kbd", {}, keyLabel(key)))), make("dd", {}, name))));
}
