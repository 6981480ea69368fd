// The page: what is known of the walk, what is drawn of it, and what each control asks the server for.

import { Connection, toImage } from "./connection.js";
import { Tree, colour, lines } from "./drawing.js";
import { Keys } from "./keys.js";
import { Painter } from "./paint.js";

const MOST_PICTURES = 2000;
const MOST_IN_FLIGHT = 2;
const element = (id) => document.getElementById(id);
const state = {
  welcome: null, moments: new Map(), pictures: new Map(), here: null, shown: null, framesDrawn: 0, latency: [],
  playing: false, by: "player", plans: null, replay: null, loaded: null, frames: [],
};
window.worldloom = { state };

const connection = new Connection(onAnswer, say);
const tree = new Tree(element("timeline"), go);
const painter = new Painter({ tool: element("tool"), brush: element("brush"), colour: element("colour") });
let keys = null;
let inFlight = 0;
let nextTick = 0;
let canvases = new Map();

function say(text) {
  element("status").textContent = text;
}

function onAnswer(answer, asked) {
  if (asked && asked.type === "step" && answer.type !== "grid") inFlight = Math.max(0, inFlight - 1);
  if (asked && asked.type === "step" && answer.type === "moment") measured(performance.now() - asked.when);
  const handlers = { welcome, moment, grid, replay, loaded, file, training, error, bye };
  if (handlers[answer.type]) handlers[answer.type](answer, asked);
}

function welcome(answer) {
  Object.assign(state, { welcome: answer, here: null, playing: state.playing && answer.mode === "dream" });
  state.moments.clear();
  state.pictures.clear();
  tree.clear();
  inFlight = 0;
  sessionStorage.setItem("session", answer.session);
  document.body.className = answer.mode;
  const model = answer.model;
  element("name").textContent = model ? `${model.run}, ${model.family}, step ${model.step}` : answer.env;
  element("agent").hidden = !answer.agent;
  element("recording").hidden = !answer.recording;
  element("train").hidden = !answer.trains;
  element("trust").hidden = !answer.trust;
  keys = new Keys(element("keys"), answer.action, pressed);
  fillStarts(answer.starts);
  makePictures(answer.pictures);
  say("");
}

function fillStarts(starts) {
  const select = element("start");
  const before = select.value;
  select.replaceChildren(...starts.map(({ name, label }) => new Option(label, name)));
  if (starts.some(({ name }) => name === before)) select.value = before;
}

function makePictures(pictures) {
  canvases = new Map();
  element("pictures").replaceChildren();
  for (const { key, height, width } of pictures) {
    const roles = state.welcome.mode === "real" ? ["real"] : ["dream", "real", "difference"];
    for (const role of roles) addCanvas(key, role, height, width, pictures.length > 1);
  }
  const first = canvases.get(`dream ${pictures.length ? pictures[0].key : ""}`);
  if (first) {
    first.id = "picture";
    first.setAttribute("aria-label", "What the model imagines");
    painter.begin(first);
  }
  scalePictures();
}

function addCanvas(key, role, height, width, several) {
  const figure = document.createElement("figure");
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { height, width });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${role} ${key}`);
  const caption = document.createElement("figcaption");
  caption.textContent = (several ? `${key}: ` : "") + { dream: "imagined", real: "true", difference: "difference" }[role];
  figure.append(canvas, caption);
  figure.hidden = role === "real" || role === "difference";
  if (state.welcome.mode === "real") figure.hidden = false;
  element("pictures").append(figure);
  canvases.set(`${role} ${key}`, canvas);
}

// Whole factors keep pixels square and sharp.
function scalePictures() {
  const shown = [...canvases.values()].filter((canvas) => !canvas.parentElement.hidden);
  const room = element("pictures").clientWidth / Math.max(1, Math.min(shown.length, innerWidth < 820 ? 1 : 3)) - 10;
  const high = Math.max(160, innerHeight * 0.55);
  for (const canvas of shown) {
    const factor = Math.max(1, Math.floor(Math.min(room / canvas.width, high / canvas.height)));
    canvas.style.width = `${canvas.width * factor}px`;
    canvas.style.height = `${canvas.height * factor}px`;
  }
}

function moment(answer, asked) {
  const found = answer.moment;
  const before = state.moments.get(found.number);
  if (!before) tree.add(found);
  state.moments.set(found.number, found);
  keepPictures(found.number, answer.pictures);
  if (answer.plan !== null || (asked && asked.type === "load" && !answer.here)) return;
  if (answer.here) state.here = found.number;
  if (answer.here || (asked && asked.type === "show")) show(found);
}

function keepPictures(number, pictures) {
  state.pictures.delete(number);
  state.pictures.set(number, pictures.map((picture) => ({ ...picture, pixels: picture.pixels.slice() })));
  if (state.pictures.size > MOST_PICTURES) state.pictures.delete(state.pictures.keys().next().value);
}

function show(found) {
  state.shown = found.number;
  drawPictures(state.pictures.get(found.number) || []);
  state.framesDrawn += 1;
  state.frames.push(performance.now());
  drawVectors(found.vectors);
  requestAnimationFrame(drawAround);
}

function drawPictures(pictures) {
  for (const picture of pictures) {
    const canvas = canvases.get(`${picture.role} ${picture.key}`);
    if (picture.role === "heat") drawHeat(canvases.get(`dream ${picture.key}`), picture);
    if (!canvas) continue;
    canvas.getContext("2d").putImageData(toImage(picture), 0, 0);
  }
  if (state.welcome.mode === "dream") drawDifferences(pictures);
  painter.undone = [];
}

function drawHeat(canvas, heat) {
  const pen = canvas.getContext("2d");
  const image = pen.getImageData(0, 0, heat.width, heat.height);
  heat.pixels.forEach((value, i) => {
    const share = (value / 255) * 0.8;
    [255, 60, 0].forEach((hue, c) => { image.data[4 * i + c] += (hue - image.data[4 * i + c]) * share; });
  });
  pen.putImageData(image, 0, 0);
}

function drawDifferences(pictures) {
  let changed = false;
  for (const dreamt of pictures.filter(({ role }) => role === "dream")) {
    const real = pictures.find(({ role, key }) => role === "real" && key === dreamt.key);
    for (const role of ["real", "difference"]) {
      const figure = canvases.get(`${role} ${dreamt.key}`).parentElement;
      changed ||= figure.hidden === Boolean(real);
      figure.hidden = !real;
    }
    if (!real) continue;
    const pixels = dreamt.pixels.map((value, i) => Math.abs(value - real.pixels[i]));
    canvases.get(`difference ${dreamt.key}`).getContext("2d").putImageData(toImage({ ...dreamt, pixels }), 0, 0);
  }
  if (changed) scalePictures();
}

function drawVectors(vectors) {
  const rows = [];
  for (const { key, names } of state.welcome.vectors) {
    (vectors[key] || []).forEach((value, i) => {
      const row = document.createElement("div");
      const bar = document.createElement("meter");
      Object.assign(bar, { min: -3, max: 3, value });
      const number = document.createElement("output");
      number.textContent = value.toFixed(3);
      row.append((names && names[i]) || `${key} ${i + 1}`, bar, number);
      rows.push(row);
    });
  }
  element("vectors").replaceChildren(...rows.slice(0, 40));
}

function path() {
  const found = [];
  for (let m = state.moments.get(state.here); m; m = state.moments.get(m.parent)) found.push(m);
  return found.reverse();
}

function drawAround() {
  const along = path();
  const found = state.moments.get(state.shown);
  if (!found) return;
  tree.draw(state.moments, new Set(along.map(({ number }) => number)), state.here);
  element("where").textContent = `moment ${found.number}, ${found.steps} steps from the beginning, ${found.blind} since the last look; ${state.moments.size} moments`;
  drawCurves(along);
  drawTrust(found.trust);
  element("residual").textContent = Object.entries(found.residual).map(([key, value]) => `${key}: expected and true differ by ${value.toFixed(3)}`).join("; ");
  element("persistence").textContent = Object.entries(found.persistence).map(([key, value]) => `${key}: ${Math.round(100 * value)} % of the change is left`).join("; ");
  if (found.recorded) element("recorded").textContent = `recorded ${found.recorded.episodes} episodes, ${found.recorded.steps} steps${found.over ? "; this one is over" : ""}`;
  if (found.over && state.playing) play(false);
  element("latency").textContent = latencyText();
}

function drawCurves(along) {
  const series = { reward: "accent", terminated: "bad", cost: "poor", disagreement: "faint" };
  const known = Object.keys(series).filter((name) => along.some(({ signals }) => name in signals));
  const drawn = known.map((name) => ({
    values: along.map(({ signals }) => signals[name] ?? 0), hue: colour(series[name]),
    ...(name === "terminated" ? { low: 0, high: 1 } : {}),
  }));
  lines(element("curves"), drawn);
  const total = along.slice(1).reduce((sum, { signals }) => sum + (signals.reward ?? 0), 0);
  const last = along[along.length - 1];
  const text = { reward: "reward (blue)", terminated: "chance of an end (red)", cost: "cost (amber)", disagreement: "disagreement (grey)" };
  element("legend").textContent = known.map((name) => `${text[name]} ${(last?.signals[name] ?? 0).toFixed(3)}`).join(", ") + `; paid in all ${total.toFixed(1)}`;
}

function drawTrust(trust) {
  const box = element("trust");
  if (!trust) return;
  const left = Math.max(0, Math.floor(trust.left));
  box.dataset.state = !trust.good ? "bad" : left < 5 ? "poor" : "good";
  element("trust-bar").style.width = `${Math.min(100, 2 * left)}%`;
  const promise = Math.round(100 * state.welcome.trust.promise);
  element("trust-text").textContent = trust.good ? `good for about ${left} more steps (${promise} % sure)` : "no longer better than knowing nothing";
  if (!trust.good && element("auto-stop").checked && state.playing) play(false);
}

function measured(milliseconds) {
  state.latency.push(milliseconds);
  if (state.latency.length > 300) state.latency.shift();
}

function latencyText() {
  const sorted = [...state.latency].sort((a, b) => a - b);
  if (!sorted.length) return "ready";
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))].toFixed(0);
  const now = performance.now();
  state.frames = state.frames.filter((when) => now - when < 1000);
  return `key to picture ${at(0.5)} ms, p95 ${at(0.95)} ms; ${state.frames.length} frames/s`;
}

function step(action = keys.action(), by = "player") {
  if (!connection.ready || inFlight >= MOST_IN_FLIGHT) return;
  inFlight += 1;
  if (by === "player") connection.ask("step", { action });
  else connection.ask("step", { by });
}

function pressed() {
  if (state.by !== "player") setBy("player");
  if (!state.playing) step();
}

function tick(now) {
  requestAnimationFrame(tick);
  if (!state.playing || !keys || now < nextTick) return;
  const speed = Number(element("speed").value);
  if (state.by === "agent" && keys.anything) setBy("player");
  if (inFlight >= MOST_IN_FLIGHT) return;
  nextTick = speed ? Math.max(now, nextTick + 1000 / (state.welcome.fps * speed)) : now;
  step(undefined, state.by);
}
requestAnimationFrame(tick);

function play(on) {
  state.playing = on;
  nextTick = performance.now();
  element("live").setAttribute("aria-pressed", on);
  element("live").firstChild.textContent = on ? "Pause " : "Play ";
}

function setBy(by) {
  state.by = by;
  element("agent").setAttribute("aria-pressed", by === "agent");
  element("recording").setAttribute("aria-pressed", by === "recording");
  if (by !== "player") play(true);
}

function go(number) {
  play(false);
  connection.ask("go", { moment: number });
}

function rewind(steps) {
  connection.ask("rewind", { steps });
}

// Looks along the branch without going anywhere new.
function scrub(by) {
  const now = state.moments.get(state.here);
  const next = now && (by < 0 ? now.parent : (tree.children.get(now.number) || []).slice(-1)[0]);
  if (next !== null && next !== undefined) go(next);
}

function grid(answer) {
  state.plans = answer;
  const longest = Math.max(...answer.plans.map((plan) => plan.length));
  Object.assign(element("grid-step"), { max: longest - 1, value: longest - 1 });
  drawGrid();
  const hues = ["accent", "bad", "good", "poor", "faint"];
  lines(element("divergence"), answer.divergence.map((values, i) => ({ values, hue: colour(hues[i % hues.length]) })));
  requestAnimationFrame(drawAround);
}

function drawGrid() {
  const at = Number(element("grid-step").value);
  element("grid").replaceChildren(...state.plans.plans.map((plan, i) => cell(plan[Math.min(at, plan.length - 1)], i)));
}

function cell(number, plan) {
  const button = document.createElement("button");
  const picture = (state.pictures.get(number) || []).find(({ role }) => role === "dream");
  if (picture) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: picture.width, height: picture.height });
    canvas.getContext("2d").putImageData(toImage(picture), 0, 0);
    button.append(canvas);
  }
  const label = document.createElement("span");
  const signals = state.moments.get(number)?.signals || {};
  label.textContent = `${state.planNames[plan]}${"terminated" in signals ? `, end ${Math.round(100 * signals.terminated)} %` : ""}`;
  button.append(label);
  button.onclick = () => go(number);
  return button;
}

function tryPlans(plans, names) {
  if (!plans.length || state.here === null) return;
  state.planNames = names;
  connection.ask("grid", { moment: state.here, plans });
}

function eachAction() {
  const { action } = state.welcome;
  const steps = Number(element("whatif-steps").value);
  const held = (one) => Array.from({ length: steps }, () => one);
  if (action.kind === "discrete") {
    const choices = [...Array(Math.min(9, action.size)).keys()];
    return [choices.map(held), choices.map((i) => keys.name(i))];
  }
  const plans = [[held(Array(action.size).fill(0)), "nothing"]];
  for (let i = 0; i < Math.min(4, action.size); i++) {
    for (const sign of [-1, 1]) {
      const one = Array(action.size).fill(0);
      one[i] = sign;
      plans.push([held(one), `${keys.name(i)} ${sign > 0 ? "+" : "−"}`]);
    }
  }
  return [plans.map(([plan]) => plan), plans.map(([, name]) => name)];
}

function atRandom() {
  const { action } = state.welcome;
  const steps = Number(element("whatif-steps").value);
  const one = () => (action.kind === "discrete" ? Math.floor(Math.random() * action.size) : Array.from({ length: action.size }, () => Math.random() * 2 - 1));
  const plan = () => { let now = one(); return Array.from({ length: steps }, () => (Math.random() < 0.25 ? (now = one()) : now)); };
  return [Array.from({ length: 9 }, plan), Array.from({ length: 9 }, (_, i) => `random ${i + 1}`)];
}

function replay(answer) {
  state.replay = answer.replay;
  download(URL.createObjectURL(new Blob([JSON.stringify(answer.replay)], { type: "application/json" })), "walk.replay.json");
}

function loaded(answer) {
  state.loaded = answer;
  state.moments.clear();
  state.pictures.clear();
  tree.clear();
  say(answer.identical ? `${answer.moments} moments, every frame as it was` : `moment ${answer.different} is the first that looks different`);
}

function file(answer) {
  state.file = answer;
  download(new URL(answer.url.replace(/^\//, ""), location.href), answer.name);
}

function download(url, name) {
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
}

function training(answer) {
  say(answer.text);
  if (answer.state === "running") setTimeout(() => connection.ask("train"), 5000);
}

function error(answer, asked) {
  say(answer.message);
  if (asked && asked.type === "step") play(false);
}

function bye(answer) {
  play(false);
  say(`${answer.message}. Reload the page to go on.`);
}

function onKey(event) {
  if (event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (element("help-box").open || !keys) return;
  const onButton = event.target.matches("button, summary, input");
  const does = {
    " ": () => play(!state.playing), Backspace: () => rewind(1), "[": () => scrub(-1), "]": () => scrub(1),
    ".": () => step(keys.rest), "?": () => element("help-box").showModal(),
  };
  if (event.key === " " && onButton) return;
  if (event.key in does && !(event.key === "." && state.welcome.action.kind !== "discrete")) {
    event.preventDefault();
    if (event.key === "Backspace" || !event.repeat) does[event.key]();
  } else if (!(event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) && keys.down(event.key)) event.preventDefault();
}

const clicks = {
  live: () => play(!state.playing),
  rewind: () => rewind(1),
  rewind10: () => rewind(10),
  agent: () => setBy(state.by === "agent" ? "player" : "agent"),
  recording: () => setBy(state.by === "recording" ? "player" : "recording"),
  "next-episode": () => connection.ask("new"),
  train: () => connection.ask("train"),
  whatif: () => tryPlans(...eachAction()),
  "whatif-random": () => tryPlans(...atRandom()),
  anchor: () => connection.ask("anchor"),
  undo: () => painter.undo(),
  edit: () => { setPainting(false); connection.ask("edit", { key: state.welcome.pictures[0].key, pixels: painter.pixels() }); },
  paint: () => setPainting(!painter.on),
  "record-png": () => connection.ask("export", { kind: "png" }),
  "record-mp4": () => connection.ask("export", { kind: "mp4" }),
  "record-dataset": () => connection.ask("export", { kind: "dataset" }),
  save: () => connection.ask("save"),
  new: () => connection.ask("new", { start: element("start").value, seed: Number(element("seed").value) }),
  help: () => element("help-box").showModal(),
};
for (const [id, does] of Object.entries(clicks)) element(id).onclick = does;

function setPainting(on) {
  painter.on = on;
  if (on) play(false);
  element("paint").setAttribute("aria-pressed", on);
}

const options = () => connection.ask("options", { reality: element("reality").checked, heat: element("heat").checked });
element("reality").onchange = element("heat").onchange = options;
element("grid-step").oninput = () => state.plans && drawGrid();
element("load").onchange = async (event) => openReplay(event.target.files[0]);

async function openReplay(chosen) {
  if (!chosen) return;
  try {
    connection.ask("load", { replay: JSON.parse(await chosen.text()) });
  } catch {
    say(`${chosen.name} is no replay: it is not JSON`);
  }
}

addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); openReplay(event.dataTransfer.files[0]); });
addEventListener("keydown", onKey);
addEventListener("keyup", (event) => keys && keys.release(event.key));
addEventListener("blur", () => keys && keys.releaseAll());
addEventListener("resize", () => { scalePictures(); if (state.shown !== null) drawAround(); });
