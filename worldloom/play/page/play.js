// The page: what the server says goes into the walk and onto the screen, what a person does goes to the server.

import { Connection } from "./connection.js";
import { Continuous } from "./continuous.js";
import { Curves } from "./curves.js";
import { Discrete } from "./discrete.js";
import { clamp, find, make, onScheme, readColors, setText, show } from "./dom.js";
import { WhatIf, choosePlans } from "./grid.js";
import { Keep } from "./keep.js";
import { holdable, keyLabel } from "./keys.js";
import { Loop, SPEEDS } from "./loop.js";
import { Stopwatch, showPersistence, showRecorded, showResidual, showTrust } from "./meters.js";
import { Numbers } from "./numbers.js";
import { Paint } from "./paint.js";
import { Screen } from "./screen.js";
import { Rewind, Shortcuts } from "./shortcuts.js";
import { Timeline } from "./timeline.js";
import { Walk } from "./walk.js";

const MOST_FETCHED = 64; // moments in one "show"
const MOST_RESTORED = 2_000;
const SAID_FOR = 5_000;
const SLOW_THINGS_EVERY = 100; // ms: curves and timeline need not follow every frame
const PRESENT_FOR = 120_000;
const MOST_REMEMBERED = 200; // of the player's own actions
const LIKELY_OVER = 0.5;
const HIGHEST = "worldloom-highest";

const walk = new Walk();
const stopwatch = new Stopwatch();

/** What tests and curious people may look at. */
const state = {
  walk, facts: null, connected: false, framesDrawn: 0, stepsDone: 0, lastError: null, loaded: null, plans: null,
  files: [], training: null, residual: {}, persistence: {}, trust: null, recorded: null, over: false, controls: null,
  get here() { return walk.here; },
  get shown() { return walk.shown; },
  get moments() { return walk.moments; },
  get moment() { return walk.moments.get(walk.shown) ?? null; },
  get latency() { return stopwatch.steps; },
  get quantiles() { return stopwatch.quantiles; },
  get rates() { return stopwatch.rates; },
  get playing() { return loop.playing; },
  get painting() { return paint.active; },
};
globalThis.worldloom = { state };

const screen = new Screen(find("screen"), find("stage"));
const curves = new Curves(find("curves"));
const numbers = new Numbers();
const timeline = new Timeline(find("timeline"), find("branch-list"), find("branches"), {
  preview: (number) => { loop.pause(); look(number); },
  go: (number) => goTo(number),
});
const connection = new Connection({
  state: showConnection, welcome: welcomed, moment: received, loaded: replayLoaded, problem,
});
const loop = new Loop({ send: sendStep, changed: showPlaying, problem });
const rewind = new Rewind({
  back: goBack, busy: () => connection.waiting >= 2, held: (held) => loop.hold(held), period: () => Math.max(30, loop.period),
});
const whatif = new WhatIf({ fetch: fetchMoments, go: (number) => goTo(number), closed: () => { hush(); updateBlocked(); } });
const paint = new Paint({
  pictureOf: (key) => walk.picturesOf(walk.shown)?.get(`dream ${key}`),
  layersOf: (key) => screen.cameras.find((camera) => camera.key === key).figures.dream.firstChild,
  apply: applyEdit,
  changed: paintChanged,
});
const keep = new Keep({
  ask: (type, fields) => connection.ask(type, fields), say, problem,
  file: (answer) => state.files.push(answer), loading: () => stopEverything(),
});

// ---------------------------------------------------------------- what the server says

/** Facts of a new connection, or of a new beginning. `again` when the walk that is on the page goes on. */
function welcomed(facts, again) {
  const before = state.facts;
  state.facts = facts;
  state.connected = true;
  const kept = again && walk.moments.size > 0;
  if (!kept) forgetWalk();
  const same = before && shapeOf(before) === shapeOf(facts);
  if (!same) configure(facts);
  offerCompany(facts);
  if (!kept) state.restore = facts.mode === "dream";
  if (again || !same) sendOptions();
}

/** What decides how the page is built. */
function shapeOf({ mode, env, model, action, pictures, vectors, signals, fps }) {
  return JSON.stringify([mode, env, model, action, pictures, vectors, signals, fps]);
}

function forgetWalk() {
  walk.clear();
  curves.forget();
  stopwatch.reset();
  Object.assign(state, { over: false, residual: {}, persistence: {}, trust: null, stepsDone: 0 });
  state.played = [];
  show(find("over"), false);
  if (state.facts.mode === "dream") whatif.configure(walk, state.facts.pictures, state.facts.fps);
  paint.stop();
  loop.pause();
  loop.started = false;
}

function configure(facts) {
  const real = facts.mode === "real";
  for (const element of document.querySelectorAll("[data-only]")) show(element, element.dataset.only === facts.mode);
  document.body.dataset.mode = facts.mode;
  setText(find("model"), describeModel(facts));
  document.title = `${facts.model?.run ?? facts.env ?? "play"}: worldloom`;
  keep.run = facts.model?.run ?? "walk";
  screen.configure(facts.pictures, real);
  configureNumbers(facts);
  curves.configure(walk, facts.signals);
  timeline.configure(walk);
  paint.configure(real ? [] : facts.pictures);
  for (const id of ["paint-panel", "record-png", "record-mp4"]) show(find(id), !real && facts.pictures.length > 0);
  whatif.configure(walk, real ? [] : facts.pictures, facts.fps);
  state.controls = new (facts.action.kind === "discrete" ? Discrete : Continuous)(facts.action, () => loop.pressed());
  find("keys").replaceChildren(state.controls.element);
  loop.configure(state.controls, facts.fps);
  configureWhatIf(facts);
  configureStarts(facts);
  listActionKeys(facts);
  show(find("train"), facts.trains);
}

function describeModel({ mode, env, model }) {
  if (mode === "real") return `the real ${env ?? "environment"}`;
  if (!model) return "";
  return [model.run, model.family, `step ${model.step.toLocaleString("en")}`, model.hash.slice(0, 8)].join(" · ");
}

function configureNumbers({ pictures, vectors }) {
  const onStage = !pictures.length && vectors.length > 0;
  show(find("numbers-stage"), onStage);
  show(find("screen"), pictures.length > 0);
  show(find("numbers-panel"), !onStage && vectors.length > 0);
  numbers.configure(find(onStage ? "numbers-stage" : "numbers-list"), vectors);
}

function configureWhatIf({ action, limits }) {
  const held = action.kind === "discrete" ? "Each action, held" : "Each number low, middle and high";
  setText(find("plans-constant-text"), held);
  find("plan-steps").max = String(limits.plan_steps || 1);
}

function configureStarts({ starts }) {
  find("start").replaceChildren(...starts.map(({ name, label }) => make("option", { value: name }, label)));
  show(find("start").parentElement, starts.length > 0);
}

function listActionKeys({ action }) {
  const rows = action.kind === "discrete"
    ? state.controls.choices.map((choice) => [state.controls.keysOf(choice).concat(choice.direct.slice(0, 1)), choice.name])
    : state.controls.dimensions.map(({ minus, plus, name }) => [[minus[0], plus[0]], name]);
  find("help-actions").replaceChildren(...rows.slice(0, 20).map(([keys, name]) => make("div", {},
    make("dt", {}, ...[...new Set(keys)].filter(Boolean).map((key) => make("kbd", {}, keyLabel(key)))), make("dd", {}, name))));
}

/** What the beginning decides: whether reality is known, whether a recording or an agent can play. */
function offerCompany(facts) {
  show(find("agent-field"), facts.agent);
  show(find("recording-field"), facts.recording);
  show(find("reality-panel"), facts.mode === "dream" && facts.reality !== null);
  show(find("reality-field"), facts.pictures.length > 0);
  show(find("heat").parentElement, facts.pictures.length > 0);
  if (facts.reality === null && find("reality").checked) find("reality").checked = false;
  if (!facts.recording && loop.by === "recording") loop.setBy("player");
  screen.setLayers(find("reality").checked, find("heat").checked);
  showPlaying();
}

/** A moment came, to whatever request it belongs. */
function received(answer, request) {
  const moment = { ...answer.moment };
  const asked = answer.plan !== null && answer.plan !== undefined;
  walk.add(moment, answer.pictures, asked);
  const recorded = answer.recorded ?? moment.recorded;
  if (recorded) {
    state.recorded = recorded;
    showRecorded(recorded);
  }
  if (answer.here && !asked && request?.type !== "show" && request?.type !== "heat") arrive(moment);
  if (walk.shown === moment.number) redraw();
}

function arrive(moment) {
  walk.walkTo(moment.number);
  state.over = moment.over ?? false;
  if (state.over) episodeOver();
  if (state.restore) restore(moment.number);
  redraw();
}

/** After a reload, or where a beginning was watched first: fetch what the page does not know of the tree. */
async function restore(here) {
  state.restore = false;
  const stored = Number(sessionStorage.getItem(HIGHEST)) || 0;
  const count = state.facts.moments ?? Math.max(here, stored) + 1;
  try {
    await restoreUpTo(count);
  } catch (error) {
    if (error.code !== "refused" || count <= here + 1) return;
    await restoreUpTo(here + 1).catch(() => {});
  }
}

async function restoreUpTo(count) {
  const numbers_ = [];
  for (let number = count - 1; number >= Math.max(0, count - MOST_RESTORED); number -= 1) {
    if (!walk.moments.has(number)) numbers_.push(number);
  }
  if (!numbers_.length) return;
  await fetchMoments(numbers_);
  walk.relay();
  if (walk.here !== null) walk.walkTo(walk.here);
  redraw();
}

async function fetchMoments(wanted) {
  for (let i = 0; i < wanted.length; i += MOST_FETCHED) {
    await connection.ask("show", { moments: wanted.slice(i, i + MOST_FETCHED) });
  }
}

function replayLoaded(answer) {
  state.loaded = answer;
  state.facts = { ...state.facts, reality: null, recording: false };
  forgetWalk();
  offerCompany(state.facts);
}

function episodeOver() {
  loop.pause();
  const end = state.moment?.signals.terminated ? "The episode has ended" : "The time of this episode is over";
  setText(find("over-text"), `${end}, and it is saved.`);
  show(find("over"), true);
}

// ---------------------------------------------------------------- what a person does

/** One step to the server. The times go with its picture, so that they are measured when it is drawn. */
function sendStep(fields, times) {
  if (fields.action !== undefined) remember(fields.action);
  return connection.ask("step", fields, (answer) => {
    state.stepsDone += 1;
    stopwatch.answer();
    waitingForDraw.push(times);
    watchTrust(answer.moment.trust);
  });
}

function remember(action) {
  state.played.push(action);
  if (state.played.length > MOST_REMEMBERED) state.played.shift();
  if (state.recordedKeys && state.recordingKeys) state.recordedKeys.push(action);
}

/** Pauses once when trust runs out; whoever plays on from there is not stopped again. */
function watchTrust(trust) {
  const ranOut = state.trust?.good === true && trust?.good === false;
  if (!ranOut || !find("auto-stop").checked || !loop.playing) return;
  loop.pause();
  say("Paused: from here the dream is no longer to be trusted");
}

function goBack(steps) {
  if (!isDream()) return;
  whatif.close();
  connection.ask("rewind", { steps }).catch(problem);
}

/** Shows a moment without going there. */
function look(number) {
  if (number === null || !walk.moments.has(number)) return;
  walk.shown = number;
  redraw();
}

/** Goes to a moment; what is done next begins a branch there. Only the last of several quick wishes is sent. */
function goTo(number) {
  if (number === null || !isDream()) return;
  loop.pause();
  look(number);
  state.wish = number;
  if (!state.going) sendWish();
}

async function sendWish() {
  state.going = true;
  try {
    while (state.wish !== null) {
      const moment = state.wish;
      state.wish = null;
      await connection.ask("go", { moment });
    }
  } catch (error) {
    problem(error);
  } finally {
    state.going = false;
  }
}

async function begin() {
  const { mode } = state.facts;
  const seed = clamp(Math.round(Number(find("seed").value) || 0), 0, 2 ** 31 - 1);
  find("seed").value = String(seed);
  const start = find("start").value;
  stopEverything();
  try {
    await connection.ask("new", mode === "dream" && start ? { seed, start } : { seed });
    say(mode === "real" ? "A new episode" : "A new walk");
  } catch (error) {
    problem(error);
  }
}

function stopEverything() {
  loop.pause();
  whatif.close();
  paint.stop();
}

function sendOptions() {
  const options = { reality: find("reality").checked, heat: find("heat").checked };
  screen.setLayers(options.reality, options.heat);
  if (isDream() && connection.open) connection.ask("options", options).catch(problem);
}

async function anchor() {
  if (find("reality-panel").hidden) return;
  loop.pause();
  try {
    await connection.ask("anchor");
    say("Looked at what is true");
  } catch (error) {
    problem(error);
  }
}

async function applyEdit(key, pixels) {
  find("edit").disabled = true;
  try {
    await connection.ask("edit", { key, pixels });
    paint.stop();
    say("The walk goes on from your picture");
  } catch (error) {
    problem(error);
    find("edit").disabled = false;
  }
}

function paintChanged(active) {
  if (active) loop.pause();
  if (active) whatif.close();
  if (active) find("paint-panel").open = true;
  const button = find("paint");
  button.setAttribute("aria-pressed", String(active));
  setText(button, active ? "Painting" : "Paint on the picture");
  show(find("paint-tools"), active);
  updateBlocked();
  screen.fit();
}

// What if

function plansNow() {
  const { limits } = state.facts;
  const steps = clamp(Math.round(Number(find("plan-steps").value) || 1), 1, limits.plan_steps);
  const mine = state.recordedKeys?.length ? state.recordedKeys : state.played.slice(-steps);
  const wanted = {
    constant: find("plans-constant").checked, random: find("plans-random").checked,
    mine: find("plans-mine").checked && mine.length ? mine : null,
  };
  return choosePlans(state.controls, wanted, steps, limits.plans);
}

function notePlans() {
  if (!state.facts || !isDream()) return;
  const recorded = state.recordedKeys?.length;
  setText(find("plans-mine-text"), recorded ? `My recorded keys, ${recorded} steps` : "My last actions");
  setText(find("whatif-note"), WhatIf.note(plansNow()));
}

async function tryPlans() {
  if (!isDream()) return;
  const plans = plansNow();
  if (!plans.length) {
    say("Choose at least one kind of plan");
    return;
  }
  stopEverything();
  whatif.begin(plans);
  updateBlocked();
  const fields = { moment: walk.here, plans: plans.map(({ actions }) => actions) };
  try {
    const answer = await connection.ask("grid", fields, ({ plan, moment }) => {
      if (plan !== null && plan !== undefined) whatif.add(plan, moment.number);
    });
    state.plans = answer;
    whatif.finish(answer.divergence);
    show(find("whatif-again"), true);
    say(`${plans.length} plans: choose one to go there`);
  } catch (error) {
    whatif.close();
    problem(error);
  }
  redraw();
}

/** From now on what is played is kept as a plan, until the button is pressed again. */
function recordPlan() {
  state.recordingKeys = !state.recordingKeys;
  if (state.recordingKeys) state.recordedKeys = [];
  else find("plans-mine").checked = state.recordedKeys.length > 0;
  const button = find("record-plan");
  button.setAttribute("aria-pressed", String(state.recordingKeys));
  setText(button, state.recordingKeys ? "Recording: press to end" : "Record my keys");
  notePlans();
}

// Training a first model

async function train() {
  try {
    const answer = await connection.ask("train");
    state.training = answer;
    setText(find("training"), answer.text);
    find("train").disabled = answer.state === "running";
    if (answer.state === "running") setTimeout(train, 3000);
  } catch (error) {
    problem(error);
    find("train").disabled = false;
  }
}

// ---------------------------------------------------------------- what is shown

const waitingForDraw = [];
let asked = false;
let slowAsked = null;

function redraw() {
  if (asked) return;
  asked = true;
  // A hidden page gets no frames, but its numbers should be right when one comes back to it.
  if (document.hidden) setTimeout(draw, 100);
  else requestAnimationFrame(draw);
}

function draw() {
  asked = false;
  const moment = state.moment;
  if (!moment) return;
  const pictures = walk.picturesOf(moment.number);
  if (needsFetching(moment, pictures)) fetchMoments([moment.number]).catch(() => {});
  screen.draw(pictures);
  numbers.draw(moment.vectors);
  stopwatch.draw(waitingForDraw.splice(0));
  state.framesDrawn += 1;
  slowAsked ??= setTimeout(drawSlowThings, loop.playing ? SLOW_THINGS_EVERY : 0);
}

/** Whether something is missing that the server could send. It is asked once for each set of layers. */
function needsFetching(moment, pictures) {
  if (!isDream() || !connection.open || !state.facts.pictures.length) return false;
  const { key } = state.facts.pictures[0];
  const roles = ["dream", ...(screen.heat ? ["heat"] : []), ...(screen.reality ? ["real"] : [])];
  const missing = roles.filter((role) => !pictures?.has(`${role} ${key}`)).join(" ");
  if (!missing || moment.asked === missing) return false;
  moment.asked = missing;
  return true;
}

function drawSlowThings() {
  slowAsked = null;
  const moment = state.moment;
  if (!moment) return;
  Object.assign(state, { trust: moment.trust, residual: moment.residual ?? {}, persistence: moment.persistence ?? {} });
  curves.draw(walk.path());
  if (isDream()) {
    timeline.draw();
    showTrust(moment.trust, state.facts.trust?.promise ?? null, moment.blind);
    showResidual(moment);
    showPersistence(moment);
    rememberHighest();
  }
  state.controls.showDone(moment.action);
  setText(find("where"), `Step ${moment.steps.toLocaleString("en")}`);
  showHint(moment);
}

/** For a reload: how far the tree went. */
function rememberHighest() {
  if (state.highest === walk.highest) return;
  state.highest = walk.highest;
  sessionStorage.setItem(HIGHEST, String(walk.highest));
}

function showHint(moment) {
  const over = (moment.signals?.terminated ?? 0) > LIKELY_OVER && isDream();
  const text = over ? "The model thinks that the episode ended here" : loop.started ? "" : beginHint();
  setText(find("hint"), text);
  show(find("hint"), text !== "" && !paint.active && !whatif.open && find("lost").hidden && find("over").hidden);
}

const beginHint = () => (matchMedia("(pointer: coarse)").matches ? "Play, or touch a key for one step" : "Space plays, a key does one step");

function showPlaying() {
  const { playing, by } = loop;
  const text = playing ? "Pause" : "Play";
  setText(find("live-text"), text);
  find("live").setAttribute("aria-label", text);
  find("live-icon").setAttribute("href", playing ? "#icon-pause" : "#icon-play");
  find("agent").checked = by === "agent";
  find("recording").checked = by === "recording";
  if (state.moment) showHint(state.moment);
}

function showSpeed() {
  const speed = SPEEDS[Number(find("speed").value)];
  const text = speed === Infinity ? "fastest" : `${speed}×`;
  setText(find("speed-text"), text);
  find("speed").setAttribute("aria-valuetext", speed === Infinity ? "as fast as it goes" : `${speed} times`);
  loop.setSpeed(speed);
}

function showConnection(name, text) {
  state.connected = name === "open";
  find("connection").dataset.state = name;
  setText(find("connection-text"), { open: "Connected", connecting: "Connecting" }[name] ?? "Not connected");
  const lost = name === "waiting" || name === "closed";
  if (lost) loop.pause();
  if (lost) setText(find("lost-text"), text);
  if (lost || name === "open") show(find("lost"), lost);
}

let saidTimer = null;

/** A line that goes away by itself. */
function say(text) {
  setText(find("status-text"), text);
  find("status").dataset.kind = "said";
  show(find("status-close"), false);
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => { find("status").dataset.kind = "none"; }, SAID_FOR);
}

/** Takes back a line that would have gone away by itself. */
function hush() {
  if (find("status").dataset.kind === "said") find("status").dataset.kind = "none";
}

/** A line that stays until it is closed or something else is said. */
function problem(error) {
  state.lastError = { code: error.code ?? "page", message: error.message };
  if (error.code === "closed") return; // the banner over the picture says it already
  clearTimeout(saidTimer);
  setText(find("status-text"), error.message);
  find("status").dataset.kind = "problem";
  show(find("status-close"), true);
}

const isDream = () => state.facts?.mode === "dream";

function updateBlocked() {
  loop.blocked = paint.active || whatif.open;
  if (state.moment) showHint(state.moment);
}

// ---------------------------------------------------------------- buttons and keys

function toggleBox(id) {
  const box = find(id);
  if (box.closest("[hidden]")) return;
  box.checked = !box.checked;
  box.dispatchEvent(new Event("change"));
}

function faster() {
  const slider = find("speed");
  slider.value = String((Number(slider.value) + 1) % SPEEDS.length);
  showSpeed();
}

function toggleCompany() {
  const id = find("agent-field").hidden ? "recording" : "agent";
  if (!find(`${id}-field`).hidden) toggleBox(id);
}

const openHelp = () => {
  loop.pause();
  find("help-box").showModal();
};

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
    v: faster,
    n: begin,
    "?": openHelp,
  },
});

const onClick = {
  live: () => loop.toggle(), forward: () => goTo(walk.after(walk.shown)), rewind10: () => goBack(10),
  anchor, whatif: tryPlans, "whatif-again": () => { stopEverything(); whatif.reopen(); updateBlocked(); },
  "record-plan": recordPlan, train, "over-new": begin, help: openHelp, reconnect: () => connection.connect(),
  "status-close": () => { find("status").dataset.kind = "none"; },
};
for (const [id, action] of Object.entries(onClick)) find(id).addEventListener("click", action);

const onChange = {
  reality: sendOptions, heat: sendOptions,
  agent: (event) => loop.setBy(event.target.checked ? "agent" : "player"),
  recording: (event) => loop.setBy(event.target.checked ? "recording" : "player"),
  "plans-constant": notePlans, "plans-random": notePlans, "plans-mine": notePlans, "plan-steps": notePlans,
};
for (const [id, action] of Object.entries(onChange)) find(id).addEventListener("change", action);

holdable(find("rewind"), () => rewind.press(1), () => rewind.release());
find("speed").addEventListener("input", showSpeed);
find("start").addEventListener("change", () => find("start").blur());
find("beginning").addEventListener("submit", (event) => {
  event.preventDefault();
  find("seed").blur();
  begin();
});
find("whatif-panel").addEventListener("toggle", notePlans);
find("numbers-panel").addEventListener("toggle", redraw);
document.addEventListener("visibilitychange", () => document.hidden && loop.pause());
onScheme(redraw);

// A page that is read or looked at, though nothing is asked for, keeps its seat; one that was left does not.
let present = performance.now();
for (const name of ["pointermove", "keydown", "scroll", "touchstart"]) {
  addEventListener(name, () => { present = performance.now(); }, { passive: true, capture: true });
}
setInterval(() => {
  if (connection.open && !document.hidden && performance.now() - present < PRESENT_FOR) connection.ask("ping").catch(() => {});
}, PRESENT_FOR);
setInterval(() => setText(find("latency"), stopwatch.text()), 250);

readColors();
showSpeed();
showPlaying();
connection.connect();
