// What the numbers of a moment mean in words: trust, residual, persistence; and how quick the page is.

import { brief, clamp, count, find, setText, show } from "./dom.js";

const SAMPLES = 240;
const FAR = 10; // steps: below this the meter turns amber

/** How long it takes from a key or a tick to the drawn picture, and how many pictures a second. */
export class Stopwatch {
  constructor() {
    this.reset();
  }

  reset() {
    this.steps = [];
    this.keys = [];
    this.drawn = [];
    this.answered = [];
  }

  /** A step was answered, whether or not its picture is ever drawn. */
  answer() {
    this.answered.push(performance.now());
  }

  /** A picture is on its canvas. `waited` are the times of the steps that it shows. */
  draw(waited) {
    const now = performance.now();
    this.drawn.push(now);
    for (const { sent, key } of waited) {
      push(this.steps, now - sent);
      if (key !== null) push(this.keys, now - key);
    }
  }

  get quantiles() {
    return { ...quantiles(this.steps), key: quantiles(this.keys) };
  }

  get rates() {
    return { pictures: perSecond(this.drawn), steps: perSecond(this.answered) };
  }

  text() {
    const { p50, p95, key } = this.quantiles;
    if (p50 === null) return "";
    const { pictures } = this.rates;
    const step = `step ${short(p50)} / ${short(p95)} ms`;
    const parts = [key.p50 === null ? step : `key ${short(key.p50)} / ${short(key.p95)} ms, ${step}`];
    if (pictures > 0) parts.push(`${Math.round(pictures)} frames/s`);
    return `to picture: ${parts.join(" · ")}`;
  }
}

const short = (value) => (value < 10 ? value.toFixed(1) : String(Math.round(value)));

function push(list, value) {
  list.push(value);
  if (list.length > SAMPLES) list.shift();
}

function quantiles(samples) {
  if (!samples.length) return { p50: null, p95: null, count: 0 };
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { p50: at(0.5), p95: at(0.95), count: samples.length };
}

/** How many times in the last second; older ones are dropped from the list. */
function perSecond(times) {
  const since = performance.now() - 1000;
  while (times.length && times[0] < since) times.shift();
  return times.length;
}

/** How far a dream is to be trusted from here. */
export function showTrust(trust, promise, blind) {
  const section = find("trust");
  const level = levelOf(trust);
  section.dataset.level = level;
  setText(find("trust-text"), trustText(trust, level));
  show(find("auto-stop-field"), promise !== null);
  setText(find("trust-note"), trust ? trustNote(trust, promise, blind) : "");
  const left = trust?.left ?? 0;
  const share = left / Math.max(1, left + blind);
  find("trust-bar").style.width = `${100 * clamp(level === "bad" ? 1 : share, 0.02, 1)}%`;
}

function levelOf(trust) {
  if (!trust) return "none";
  if (!trust.good) return "bad";
  return trust.left >= FAR ? "good" : "fair";
}

function trustText(trust, level) {
  if (level === "none") return "No trust meter for this run";
  if (level === "bad") return "No longer to be trusted here";
  return `Good for about ${count(Math.round(trust.left), "more step")}`;
}

function trustNote({ good, spread }, promise, blind) {
  const seen = blind ? `${count(blind, "step")} since somebody looked` : "Somebody has just looked";
  // What it aims at. How often such promises were kept differs from model to model.
  const kept = promise === null ? "" : ` The promise is made to be kept ${Math.round(100 * promise)} % of the time.`;
  return `${seen}, spread ${brief(spread)}.${good ? kept : " Nothing can be promised from here on."}`;
}

/** How far what was expected lay from what was true. */
export function showResidual(moment) {
  const entries = Object.entries(moment.residual ?? {});
  const text = entries.map(([key, value]) => `${key} ${brief(value)}`).join(", ");
  setText(find("residual"), text ? `Looked here. It was off by ${text} (root mean square).` : "");
}

/** How much of an edit is left. */
export function showPersistence(moment) {
  const entries = Object.entries(moment.persistence ?? {});
  show(find("edited"), entries.length > 0);
  // What was painted may grow, or turn into its opposite; as a share that means all of it, or nothing.
  const percent = (value) => `${Math.round(100 * clamp(value, 0, 1))} %`;
  const one = entries.length === 1;
  setText(find("persistence"), entries.map(([key, value]) => `${percent(value)} of it is left${one ? "" : ` in ${key}`}`).join(", "));
}

export function showRecorded(recorded) {
  if (!recorded) return;
  const { episodes, steps } = recorded;
  setText(find("recorded"), `${count(episodes, "episode")}, ${count(steps, "step")}`);
}
