// The page: what the server says goes into the walk and onto the screen, what a person does goes to the server.

import { Connection } from "./connection.js";
import { Continuous } from "./continuous.js";
import { Curves } from "./curves.js";
import { Discrete } from "./discrete.js";
import { clamp, find, readColors, setText, show } from "./dom.js";
import { Fetching } from "./fetching.js";
import { WhatIf } from "./grid.js";
import { Keep } from "./keep.js";
import { Loop } from "./loop.js";
import { Stopwatch, showRecorded } from "./meters.js";
import { Numbers } from "./numbers.js";
import { Paint } from "./paint.js";
import { Planning } from "./planning.js";
import { Screen } from "./screen.js";
import { placeNumbers, setUp, shapeOf } from "./setup.js";
import { Rewind } from "./shortcuts.js";
import { complain, hush, say } from "./status.js";
import { Timeline } from "./timeline.js";
import { Training } from "./training.js";
import { View } from "./view.js";
import { Walk } from "./walk.js";
import { wire } from "./wiring.js";

const walk = new Walk();
const stopwatch = new Stopwatch();

/** What tests and curious people may look at. */
const state = {
  walk, facts: null, connected: false, framesDrawn: 0, stepsDone: 0, lastError: null, loaded: null, plans: null,
  files: [], residual: {}, persistence: {}, trust: null, recorded: null, over: false, controls: null,
  get here() { return walk.here; },
  get shown() { return walk.shown; },
  get moments() { return walk.moments; },
  get training() { return training.answer; },
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
const planning = new Planning();
const timeline = new Timeline(find("timeline"), find("branch-list"), find("branches"), {
  preview: (number) => { loop.pause(); look(number); },
  go: (number) => goTo(number),
});
const connection = new Connection({
  state: (name, text) => view.showConnection(name, text), welcome: welcomed, moment: received, loaded: (answer) => { state.loaded = answer; }, problem,
});
const fetching = new Fetching(connection, walk);
const loop = new Loop({ send: sendStep, changed: () => view.showPlaying(), problem });
const rewind = new Rewind({
  back: goBack, busy: () => connection.waiting >= 2, held: (held) => loop.hold(held && isDream()), period: () => Math.max(30, loop.period),
});
const whatif = new WhatIf({ fetch: (wanted) => fetching.fetch(wanted), go: (number) => goTo(number), closed: () => { hush(); updateBlocked(); } });
const paint = new Paint({
  shown: () => walk.shown,
  pictureOf: (moment, key) => walk.picturesOf(moment)?.get(`dream ${key}`),
  layersOf: (key) => screen.cameras.find((camera) => camera.key === key).figures.dream.firstChild,
  apply: applyEdit,
  changed: paintChanged,
});
const keep = new Keep({
  ask: (type, fields) => connection.ask(type, fields), say, problem,
  file: (answer) => state.files.push(answer), loading: () => stopEverything(),
});

const training = new Training({ ask: (type) => connection.ask(type), problem });
const view = new View({
  state, walk, screen, numbers, curves, timeline, stopwatch, fetching, connection, loop, paint, whatif, isDream,
});

// ---------------------------------------------------------------- what the server says

/** Facts of a new connection, or of a new beginning. `again` when the walk that is on the page goes on. */
function welcomed(facts, again) {
  const before = state.facts;
  state.facts = facts;
  state.connected = true;
  const kept = again && walk.moments.size > 0;
  if (!kept) forgetWalk();
  state.restore = facts.mode === "dream";
  const same = before && shapeOf(before) === shapeOf(facts);
  if (!same) configure(facts);
  offerCompany(facts);
  if (again || !same) sendOptions();
  if (facts.trains) training.follow();
}

function forgetWalk() {
  walk.clear();
  curves.forget();
  stopwatch.reset();
  Object.assign(state, { over: false, residual: {}, persistence: {}, trust: null, stepsDone: 0 });
  planning.forget();
  show(find("over"), false);
  if (state.facts.mode === "dream") whatif.configure(walk, state.facts.pictures, state.facts.fps);
  show(find("whatif-again"), false);
  paint.stop();
  loop.pause();
  loop.started = false;
}

function configure(facts) {
  const real = facts.mode === "real";
  state.controls = new (facts.action.kind === "discrete" ? Discrete : Continuous)(facts.action, () => loop.pressed());
  setUp(facts, state.controls);
  keep.run = facts.model?.run ?? "walk";
  screen.configure(facts.pictures, real);
  numbers.configure(placeNumbers(facts), facts.vectors);
  curves.configure(walk, facts.signals);
  timeline.configure(walk);
  paint.configure(real ? [] : facts.pictures);
  whatif.configure(walk, real ? [] : facts.pictures, facts.fps);
  planning.configure(state.controls, facts.limits);
  loop.configure(state.controls, facts.fps);
}

/** What the beginning decides: whether reality is known, whether a recording or an agent can play. */
function offerCompany(facts) {
  show(find("agent-field"), facts.agent);
  show(find("recording-field"), facts.recording);
  show(find("reality-panel"), facts.mode === "dream" && facts.reality !== null);
  show(find("heat").parentElement, facts.pictures.length > 0);
  if (facts.reality === null && find("reality").checked) find("reality").checked = false;
  if (!facts.recording && loop.by === "recording") loop.setBy("player");
  screen.setLayers(find("reality").checked, find("heat").checked);
  view.showPlaying();
}

/** A moment came, to whatever request it belongs. */
function received(answer, request) {
  const moment = { ...answer.moment };
  const asked = answer.plan !== null && answer.plan !== undefined;
  walk.add(moment, answer.pictures, asked);
  if (moment.recorded) {
    state.recorded = moment.recorded;
    showRecorded(moment.recorded);
  }
  if (answer.here && !asked && request?.type !== "show") arrive(moment);
  if (walk.shown === moment.number) view.redraw();
}

function arrive(moment) {
  walk.walkTo(moment.number);
  state.over = moment.over ?? false;
  if (state.over) episodeOver();
  // Moments from before a reload, rows that were watched, a replay, answers that were lost with a connection.
  if (state.restore && walk.moments.size !== state.facts.moments) fetching.restore().then(() => view.redraw(), problem);
  state.restore = false;
  view.redraw();
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
  if (fields.action !== undefined) planning.remember(fields.action);
  return connection.ask("step", fields, (answer) => {
    state.stepsDone += 1;
    stopwatch.answer();
    view.expect(times);
    watchTrust(answer.moment.trust);
  });
}

/** Pauses once when trust runs out; a player who goes on from there is not stopped again. */
function watchTrust(trust) {
  const ranOut = state.trust?.good === true && trust?.good === false;
  if (!ranOut || !find("auto-stop").checked || !loop.playing) return;
  loop.pause();
  say("Paused: from here the dream is no longer to be trusted");
}

function goBack(steps) {
  if (!isDream()) return;
  loop.drop();
  whatif.close();
  connection.ask("rewind", { steps }).catch(problem);
}

/** Shows a moment without going there. */
function look(number) {
  if (number === null || !walk.moments.has(number)) return;
  walk.shown = number;
  view.redraw();
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

function isDream() {
  return state.facts?.mode === "dream";
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

/** Edits the moment that was painted on, wherever the walk has gone since. */
async function applyEdit(moment, key, pixels) {
  find("edit").disabled = true;
  try {
    // Both in one breath: no other wish may come between them and lead elsewhere.
    await Promise.all([connection.ask("go", { moment }), connection.ask("edit", { key, pixels })]);
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

async function tryPlans() {
  if (!isDream()) return;
  const plans = planning.plans();
  if (!plans.length) {
    say("Choose at least one kind of plan");
    return;
  }
  stopEverything();
  const tried = whatif.begin(plans);
  updateBlocked();
  try {
    await follow(tried);
  } catch (error) {
    if (whatif.plans === tried) whatif.close();
    problem(error);
  }
  view.redraw();
}

/** Shows what comes of plans, unless others have taken their place or another walk has begun. */
async function follow(tried) {
  const fields = { moment: walk.here, plans: tried.map(({ actions }) => actions) };
  const answer = await connection.ask("grid", fields, ({ plan, moment }) => {
    if (whatif.plans === tried) whatif.add(plan, moment.number);
  });
  if (whatif.plans !== tried) return;
  state.plans = answer;
  whatif.finish(answer.divergence);
  show(find("whatif-again"), true);
  say(`${tried.length} plans: choose one to go there`);
}

function problem(error) {
  state.lastError = { code: error.code ?? "page", message: error.message };
  // The banner over the picture says already that the connection is gone.
  if (error.code !== "closed") complain(error.message);
}


function updateBlocked() {
  loop.blocked = paint.active || whatif.open;
  view.showHint();
}

function openHelp() {
  loop.pause();
  find("help-box").showModal();
}

function showPlansAgain() {
  stopEverything();
  whatif.reopen();
  updateBlocked();
}

wire({
  state, walk, loop, rewind, whatif, paint, connection, stopwatch, goTo, goBack, anchor, begin, tryPlans, showPlansAgain,
  openHelp, sendOptions, isDream, train: () => training.start(), showSpeed: () => view.showSpeed(), redraw: () => view.redraw(),
});
readColors();
view.showSpeed();
view.showPlaying();
connection.connect();
