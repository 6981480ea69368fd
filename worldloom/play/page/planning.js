// Choosing plans for "what if": from what is ticked, from what was played, from keys that were recorded for it.

import { clamp, find, setText } from "./dom.js";
import { WhatIf, choosePlans } from "./grid.js";

const MOST_REMEMBERED = 200;

export class Planning {
  constructor() {
    this.forget();
    this.recorded = null;
    this.recording = false;
    for (const id of ["plans-constant", "plans-random", "plans-mine", "plan-steps"]) {
      find(id).addEventListener("change", () => this.note());
    }
    find("whatif-panel").addEventListener("toggle", () => this.note());
    find("record-plan").addEventListener("click", () => this.record());
  }

  configure(controls, limits) {
    Object.assign(this, { controls, limits, recorded: null });
    if (this.recording) this.record();
  }

  forget() {
    this.played = [];
  }

  /** An action that the player did. */
  remember(action) {
    this.played.push(action);
    if (this.played.length > MOST_REMEMBERED) this.played.shift();
    if (this.recording && this.recorded.length < this.limits.plan_steps) this.recorded.push(action);
  }

  /** What would be tried now. */
  plans() {
    const steps = clamp(Math.round(Number(find("plan-steps").value) || 1), 1, this.limits.plan_steps);
    const mine = this.recorded?.length ? this.recorded : this.played.slice(-steps);
    const wanted = {
      constant: find("plans-constant").checked, random: find("plans-random").checked,
      mine: find("plans-mine").checked && mine.length ? mine : null,
    };
    return choosePlans(this.controls, wanted, steps, this.limits.plans);
  }

  note() {
    if (!this.limits?.plans) return;
    const length = this.recorded?.length;
    setText(find("plans-mine-text"), length ? `My recorded keys, ${length} steps` : "My last actions");
    setText(find("whatif-note"), WhatIf.note(this.plans()));
  }

  /** From now on what is played is kept as a plan, until the button is pressed again. */
  record() {
    this.recording = !this.recording;
    if (this.recording) this.recorded = [];
    else find("plans-mine").checked = this.recorded?.length > 0;
    const button = find("record-plan");
    button.setAttribute("aria-pressed", String(this.recording));
    setText(button, this.recording ? "Recording: press to end" : "Record my keys");
    this.note();
  }
}
