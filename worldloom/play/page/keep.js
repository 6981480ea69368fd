// Keeping a walk: PNG, mp4, dataset, and replays that are saved and played again.

import { count, find, make, setText, show } from "./dom.js";

const MOST_BYTES = 15_500_000; // the server takes messages of 16 MB

export class Keep {
  /** `listeners`: ask(type, fields), say(text), problem(error), file(answer), loading(). */
  constructor(listeners) {
    this.listeners = listeners;
    this.run = "walk";
    for (const kind of ["png", "mp4", "dataset"]) {
      const button = find(`record-${kind}`);
      button.addEventListener("click", () => this.during(button, () => this.export(kind)));
    }
    find("save").addEventListener("click", () => this.during(find("save"), () => this.save()));
    find("load").addEventListener("change", (event) => this.chosen(event.target));
    this.acceptDrops();
  }

  /** A button rests while what it began is under way. */
  async during(button, work) {
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      this.listeners.problem(error);
    } finally {
      button.disabled = false;
    }
  }

  async export(kind) {
    this.listeners.say(kind === "png" ? "Making the picture" : `Making the ${kind}`);
    const answer = await this.listeners.ask("export", { kind });
    download(new URL(answer.url.replace(/^\//, ""), document.baseURI).href, answer.name);
    this.listeners.file(answer);
    this.listeners.say(`${answer.name} is ready`);
  }

  async save() {
    const { replay } = await this.listeners.ask("save");
    const url = URL.createObjectURL(new Blob([JSON.stringify(replay)], { type: "application/json" }));
    download(url, `replay-${this.run}-${replay.moments?.length ?? 0}.json`);
    // The download has its own hold on the data after a while.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    this.listeners.say("The replay is saved");
  }

  chosen(input) {
    const [file] = input.files;
    if (!file) return;
    this.during(input, () => this.load(file)).finally(() => { input.value = ""; }); // so that it can be chosen again
  }

  async load(file) {
    if (file.size > MOST_BYTES) throw new Error(`${file.name} is larger than the server takes (16 MB).`);
    let replay;
    try {
      replay = JSON.parse(await file.text());
    } catch {
      throw new Error(`${file.name} is no replay: it is not JSON.`);
    }
    if (replay === null || typeof replay !== "object" || Array.isArray(replay)) throw new Error(`${file.name} is no replay.`);
    this.listeners.loading();
    this.listeners.say("Playing the replay again");
    const answer = await this.listeners.ask("load", { replay });
    this.tell(answer);
  }

  tell({ moments, identical, different }) {
    const text = identical
      ? `All ${count(moments, "frame")} came out identical.`
      : `Frame ${different} is the first of ${moments.toLocaleString("en")} that differs.`;
    setText(find("load-result"), text);
    this.listeners.say(text);
  }

  acceptDrops() {
    const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    addEventListener("dragover", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      show(find("drop"), true);
    });
    addEventListener("dragleave", (event) => event.relatedTarget ?? show(find("drop"), false));
    addEventListener("drop", (event) => {
      show(find("drop"), false);
      if (!carriesFiles(event)) return;
      event.preventDefault();
      const [file] = event.dataTransfer.files;
      if (file) this.during(find("load"), () => this.load(file));
    });
  }
}

function download(href, name) {
  const link = make("a", { href, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}
