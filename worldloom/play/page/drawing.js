// Small drawings on canvases: the tree of moments, and lines over steps.

export function prepared(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function lines(canvas, series) {
  const { pen, width, height } = prepared(canvas);
  const longest = Math.max(2, ...series.map(({ values }) => values.length));
  for (const { values, hue, low, high } of series) {
    const least = low ?? Math.min(0, ...values);
    const most = high ?? Math.max(1e-9, ...values);
    pen.strokeStyle = hue;
    pen.lineWidth = 1.8;
    pen.beginPath();
    values.forEach((value, i) => {
      const x = 4 + (i / (longest - 1)) * (width - 8);
      const y = height - 4 - ((value - least) / (most - least || 1)) * (height - 8);
      if (i) pen.lineTo(x, y);
      else pen.moveTo(x, y);
    });
    pen.stroke();
  }
}

// Moments by steps from left to right, each branch in a lane of its own.
export class Tree {
  constructor(canvas, onGo) {
    this.canvas = canvas;
    this.lanes = new Map();
    this.children = new Map();
    this.most = 0;
    this.places = [];
    canvas.onclick = (event) => {
      const nearest = this.nearest(event.offsetX, event.offsetY);
      if (nearest !== null) onGo(nearest);
    };
    canvas.onkeydown = (event) => this.key(event, onGo);
  }

  clear() {
    this.lanes.clear();
    this.children.clear();
    this.most = 0;
  }

  add(moment) {
    if (this.lanes.has(moment.number)) return;
    const siblings = this.children.get(moment.parent) || [];
    const lane = moment.parent === null ? this.most++ : siblings.length ? this.most++ : this.lanes.get(moment.parent) ?? this.most++;
    this.lanes.set(moment.number, lane);
    if (moment.parent !== null) this.children.set(moment.parent, [...siblings, moment.number]);
  }

  draw(moments, path, here) {
    const { pen, width, height } = prepared(this.canvas);
    const longest = Math.max(20, ...[...moments.values()].map((m) => m.steps));
    const lanes = Math.max(1, this.most);
    const place = (m) => [8 + (m.steps / longest) * (width - 16), 10 + ((this.lanes.get(m.number) + 0.5) / lanes) * (height - 20)];
    this.places = [];
    for (const m of moments.values()) {
      const [x, y] = place(m);
      const parent = moments.get(m.parent);
      this.places.push([m.number, x, y]);
      if (!parent) continue;
      const [px, py] = place(parent);
      pen.strokeStyle = path.has(m.number) ? colour("accent") : colour("line");
      pen.lineWidth = path.has(m.number) ? 3 : 2;
      pen.beginPath();
      pen.moveTo(px, py);
      pen.lineTo(x, y);
      pen.stroke();
      if (m.kind === "step") continue;
      pen.fillStyle = m.kind === "edit" ? colour("poor") : colour("good");
      pen.fillRect(x - 2, y - 4, 4, 8);
    }
    const now = moments.get(here);
    if (!now) return;
    const [x, y] = place(now);
    pen.fillStyle = colour("accent");
    pen.beginPath();
    pen.arc(x, y, 5, 0, 7);
    pen.fill();
    this.moments = moments;
    this.here = here;
  }

  nearest(x, y) {
    let best = null, least = Infinity;
    for (const [number, px, py] of this.places) {
      const distance = Math.abs(px - x) + 2 * Math.abs(py - y);
      if (distance < least) [best, least] = [number, distance];
    }
    return best;
  }

  key(event, onGo) {
    const now = this.moments && this.moments.get(this.here);
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const lanes = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!now || (!steps && !lanes)) return;
    event.preventDefault();
    event.stopPropagation();
    const next = steps === -1 ? now.parent : steps ? (this.children.get(now.number) || [])[0] : this.otherLane(now, lanes);
    if (next !== null && next !== undefined) onGo(next);
  }

  otherLane(now, by) {
    const mine = this.lanes.get(now.number);
    const others = [...this.moments.values()].filter((m) => Math.sign(this.lanes.get(m.number) - mine) === by);
    others.sort((a, b) => Math.abs(this.lanes.get(a.number) - mine) - Math.abs(this.lanes.get(b.number) - mine) || Math.abs(a.steps - now.steps) - Math.abs(b.steps - now.steps));
    return others.length ? others[0].number : null;
  }
}
