// A first model of what is being recorded: its training is started here, and asked how it goes.

import { find, setText } from "./dom.js";

const EVERY = 3000; // ms

export class Training {
  /** `ask` sends a request; `problem` says what went wrong. */
  constructor({ ask, problem }) {
    Object.assign(this, { ask, problem, answer: null, timer: null });
  }

  start() {
    return this.send("train");
  }

  /** Asks how it goes for as long as it is under way, which it may be since before a reload. */
  follow() {
    return this.send("training");
  }

  async send(type) {
    clearTimeout(this.timer);
    try {
      this.answer = await this.ask(type);
      const running = this.answer.state === "running";
      setText(find("training"), this.answer.text);
      find("train").disabled = running;
      if (running) this.timer = setTimeout(() => this.follow(), EVERY);
    } catch (error) {
      this.problem(error);
      find("train").disabled = false;
    }
  }
}
