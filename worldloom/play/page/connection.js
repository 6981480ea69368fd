// The WebSocket to the server: requests with numbers, answers as promises, and a connection that comes back by itself.

const VERSION = 1;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;
const STORED = "worldloom-session";

// After these goodbyes another attempt would end the same way, or would take the walk from another window.
const FINAL = new Set(["refused", "version", "elsewhere", "idle", "rate", "malformed", "hello", "size"]);

// Which answer is the last one to a request. Everything else ends with one moment, "show" with as many as were asked for.
const LAST_ANSWER = {
  grid: "grid", tree: "tree", save: "replay", load: "loaded", export: "file", train: "training", training: "training", ping: "pong",
};

/** Of a request that was refused by the server, or that a lost connection left without an answer. */
export class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Takes one binary answer apart: its header, and the pictures as views on the bytes that came. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  header.pictures = header.pictures.map((picture) => {
    const size = picture.height * picture.width * picture.channels;
    const pixels = new Uint8Array(buffer, offset, size);
    offset += size;
    return { ...picture, pixels };
  });
  return header;
}

/**
 * Calls `listeners.state(name, text)` with "connecting", "open", "waiting" or "closed", and `welcome`, `moment`,
 * `loaded` with what the server says.
 */
export class Connection {
  constructor(listeners) {
    this.listeners = listeners;
    this.number = 0;
    this.pending = new Map();
    this.attempts = 0;
    this.goodbye = null;
    this.timer = null;
    this.socket = null;
    globalThis.addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  get open() {
    return this.socket !== null && this.socket.readyState === WebSocket.OPEN;
  }

  /** How many requests have not been answered yet. */
  get waiting() {
    return this.pending.size;
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    this.goodbye = null;
    this.listeners.state("connecting", "Connecting");
    const socket = new WebSocket(address());
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.greet();
    socket.onmessage = (event) => socket === this.socket && this.receive(event.data);
    socket.onclose = () => socket === this.socket && this.closed();
    this.socket = socket;
  }

  greet() {
    const session = sessionStorage.getItem(STORED);
    this.ask("hello", session ? { version: VERSION, session } : { version: VERSION }).catch(() => {});
  }

  /** Sends a request. The promise ends with its last answer. `every` is called with each moment that belongs to it. */
  ask(type, fields = {}, every = null) {
    if (!this.open) return Promise.reject(new Refusal("closed", "There is no connection to the server right now."));
    this.number += 1;
    const id = this.number;
    const last = LAST_ANSWER[type] ?? "moment";
    const left = type === "show" ? fields.moments.length : 1;
    const answered = new Promise((resolve, reject) => {
      this.pending.set(id, { type, last, left, every, resolve, reject });
    });
    this.socket.send(JSON.stringify({ type, id, ...fields }));
    return answered;
  }

  receive(data) {
    const answer = typeof data === "string" ? JSON.parse(data) : unpack(data);
    if (answer.type === "bye") this.goodbye = answer;
    else if (answer.type === "error") this.refuse(answer);
    else this.deliver(answer);
  }

  refuse(answer) {
    const request = this.pending.get(answer.id);
    this.pending.delete(answer.id);
    const refusal = new Refusal(answer.code, answer.message);
    if (request) request.reject(refusal);
    else this.listeners.problem(refusal);
  }

  deliver(answer) {
    const request = this.pending.get(answer.id);
    if (answer.type === "welcome") this.welcomed(answer, request);
    if (answer.type === "loaded") this.listeners.loaded(answer);
    if (answer.type === "moment") {
      this.listeners.moment(answer, request);
      request?.every?.(answer);
    }
    if (!request || answer.type !== request.last) return;
    request.left -= 1;
    if (request.left > 0) return;
    this.pending.delete(answer.id);
    request.resolve(answer);
  }

  welcomed(answer, request) {
    this.attempts = 0;
    const again = sessionStorage.getItem(STORED) === answer.session;
    sessionStorage.setItem(STORED, answer.session);
    this.listeners.state("open", "Connected");
    this.listeners.welcome(answer, again && request?.type === "hello");
  }

  closed() {
    this.socket = null;
    const lost = new Refusal("closed", "The connection was lost before the answer came.");
    for (const request of this.pending.values()) request.reject(lost);
    this.pending.clear();
    if (this.goodbye && FINAL.has(this.goodbye.code)) {
      this.listeners.state("closed", this.goodbye.message);
      return;
    }
    // Half of the wait is by chance, so that many pages do not all come back in the same moment.
    const longest = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.attempts);
    const wait = longest * (0.5 + Math.random() / 2);
    this.attempts += 1;
    this.listeners.state("waiting", this.goodbye?.message ?? "The server does not answer. Trying again.");
    this.timer = setTimeout(() => this.connect(), wait);
  }

  retryNow() {
    if (this.timer !== null) this.connect();
  }
}

function address() {
  const found = new URL("ws", document.baseURI);
  found.protocol = found.protocol === "https:" ? "wss:" : "ws:";
  const token = new URLSearchParams(location.search).get("token");
  if (token !== null) found.searchParams.set("token", token);
  return found;
}
