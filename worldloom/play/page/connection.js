// The WebSocket: numbered requests, answers with pictures, and coming back after a break.

const DECODER = new TextDecoder();

export class Connection {
  constructor(onAnswer, onChange) {
    this.onAnswer = onAnswer;
    this.onChange = onChange;
    this.number = 0;
    this.waits = new Map();
    this.delay = 500;
    this.ended = null;
    this.open();
  }

  open() {
    const address = new URL("ws" + location.search, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.delay = 500;
      this.ask("hello", { version: 1, session: sessionStorage.getItem("session") });
    };
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onclose = () => this.closed();
  }

  closed() {
    this.waits.clear();
    if (this.ended) return;
    this.onChange("the connection is lost: trying again");
    setTimeout(() => this.open(), this.delay);
    this.delay = Math.min(this.delay * 2, 10000);
  }

  get ready() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  ask(type, fields = {}) {
    if (!this.ready) return null;
    const id = (this.number = (this.number + 1) % 2 ** 31);
    this.waits.set(id, { type, when: performance.now() });
    this.socket.send(JSON.stringify({ type, id, ...fields }));
    return id;
  }

  receive(data) {
    const answer = typeof data === "string" ? JSON.parse(data) : unpack(data);
    const asked = this.waits.get(answer.id);
    if (asked && !(answer.type === "moment" && ["grid", "load", "show"].includes(asked.type))) this.waits.delete(answer.id);
    if (answer.type === "bye") this.ended = answer;
    this.onAnswer(answer, asked);
  }
}

function unpack(data) {
  const size = new DataView(data).getUint32(0);
  const answer = JSON.parse(DECODER.decode(new Uint8Array(data, 4, size)));
  let at = 4 + size;
  for (const picture of answer.pictures) {
    const length = picture.height * picture.width * picture.channels;
    picture.pixels = new Uint8Array(data, at, length);
    at += length;
  }
  return answer;
}

export function toImage(picture) {
  const image = new ImageData(picture.width, picture.height);
  const { pixels, channels } = picture;
  for (let from = 0, to = 0; from < pixels.length; from += channels, to += 4) {
    image.data[to] = pixels[from];
    image.data[to + 1] = pixels[from + (channels > 1 ? 1 : 0)];
    image.data[to + 2] = pixels[from + (channels > 2 ? 2 : 0)];
    image.data[to + 3] = 255;
  }
  return image;
}
