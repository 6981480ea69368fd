// Painting on the moment's picture, in the model's own pixels.

export class Painter {
  constructor(controls) {
    this.controls = controls;
    this.on = false;
    this.undone = [];
  }

  begin(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    canvas.onpointerdown = (event) => this.start(event);
    canvas.onpointermove = (event) => this.move(event);
    canvas.onpointerup = (event) => this.stop(event);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.canvas.width, ((event.clientY - box.top) / box.height) * this.canvas.height];
  }

  keep() {
    this.undone.push(this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height));
    if (this.undone.length > 30) this.undone.shift();
  }

  undo() {
    const before = this.undone.pop();
    if (before) this.pen.putImageData(before, 0, 0);
  }

  start(event) {
    if (!this.on) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.keep();
    this.from = this.place(event);
    this.drawing = true;
    this.move(event);
  }

  move(event) {
    if (!this.drawing) return;
    const [x, y] = this.place(event);
    const tool = this.controls.tool.value;
    const size = Number(this.controls.brush.value);
    if (tool === "brush") this.dot(x, y, size, this.controls.colour.value);
    if (tool === "erase") this.dot(x, y, size, this.around(size));
  }

  stop(event) {
    if (!this.drawing) return;
    this.drawing = false;
    const to = this.place(event);
    const tool = this.controls.tool.value;
    if (tool === "copy") this.copy(this.from, to);
    if (tool === "paste" && this.piece) this.pen.putImageData(this.piece, Math.round(to[0] - this.piece.width / 2), Math.round(to[1] - this.piece.height / 2));
  }

  dot(x, y, size, hue) {
    this.pen.fillStyle = hue;
    this.pen.fillRect(Math.floor(x - size / 2 + 0.5), Math.floor(y - size / 2 + 0.5), size, size);
  }

  // What was around the place where erasing began, which is what a thing on a plain ground hides.
  around(size) {
    const x = Math.max(0, Math.round(this.from[0] - size - 1)), y = Math.min(this.canvas.height - 1, Math.round(this.from[1]));
    const [red, green, blue] = this.undone[this.undone.length - 1].data.slice((y * this.canvas.width + x) * 4);
    return `rgb(${red} ${green} ${blue})`;
  }

  copy(from, to) {
    const [left, right] = [from[0], to[0]].sort((a, b) => a - b).map(Math.round);
    const [top, bottom] = [from[1], to[1]].sort((a, b) => a - b).map(Math.round);
    if (right > left && bottom > top) this.piece = this.pen.getImageData(left, top, right - left, bottom - top);
    this.controls.tool.value = "paste";
  }

  // Raw RGB rows in base64.
  pixels() {
    const { data } = this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height);
    let text = "";
    for (let i = 0; i < data.length; i += 4) text += String.fromCharCode(data[i], data[i + 1], data[i + 2]);
    return btoa(text);
  }
}
