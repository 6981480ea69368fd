// The tree of moments as far as this page knows it, and the pictures of those that were looked at last.

const MOST_PICTURES = 2_000;
const MOST_BYTES = 200_000_000;

/** Moments by number, who follows whom, and in which lane of the timeline each of them lies. */
export class Walk {
  constructor() {
    this.clear();
  }

  clear() {
    this.moments = new Map();
    this.children = new Map();
    this.lanes = [];
    this.marks = []; // moments that were not simply dreamt: watched, looked at, edited
    this.steps = 0;
    this.here = null;
    this.shown = null;
    this.visited = new Map(); // the child through which the player last went, so that "forward" undoes "back"
    this.pictures = new Map();
    this.bytes = 0;
    this.version = 0;
    this.known = { number: null, path: [] };
  }

  /** Takes in what was sent of a moment. `plan` is true for one that nobody has walked to, only asked about. */
  add(moment, pictures, plan = false) {
    const old = this.moments.get(moment.number);
    const isNew = old === undefined;
    if (isNew) this.place(moment, plan);
    else Object.assign(old, moment);
    this.keep(moment.number, pictures);
    return this.moments.get(moment.number);
  }

  place(moment, plan) {
    const made = { ...moment, plan, lane: 0 };
    this.moments.set(made.number, made);
    const siblings = this.siblings(made.parent);
    siblings.push(made.number);
    made.lane = this.chooseLane(made, siblings);
    this.lanes[made.lane].numbers.push(made.number);
    if (made.kind !== "step" && made.kind !== "start") this.marks.push(made.number);
    this.steps = Math.max(this.steps, made.steps);
    this.version += 1;
  }

  siblings(parent) {
    if (!this.children.has(parent)) this.children.set(parent, []);
    return this.children.get(parent);
  }

  /** The first that follows a moment stays in its lane; each other one begins a lane below. */
  chooseLane(moment, siblings) {
    const parent = this.moments.get(moment.parent);
    if (parent && siblings.length === 1) return parent.lane;
    this.lanes.push({ from: moment.parent, numbers: [], plan: moment.plan });
    return this.lanes.length - 1;
  }

  /** The whole tree in the order in which it was made: all lanes are laid anew. */
  replant(moments) {
    const before = this.moments;
    this.moments = new Map();
    this.children = new Map();
    this.lanes = [];
    this.marks = [];
    this.known = { number: null, path: [] };
    for (const moment of moments) this.place(moment, before.get(moment.number)?.plan ?? false);
    if (this.moments.has(this.here)) this.walkTo(this.here);
  }

  /** The player has walked to this moment: it and all before it are no longer mere plans. */
  walkTo(number) {
    this.here = number;
    this.shown = number;
    for (let moment = this.moments.get(number); moment; moment = this.moments.get(moment.parent)) {
      if (this.visited.get(moment.parent) === moment.number && !moment.plan) break;
      moment.plan = false;
      this.lanes[moment.lane].plan = false;
      this.visited.set(moment.parent, moment.number);
    }
    this.version += 1;
  }

  /** The numbers from the beginning to `number`. Kept, because it is asked for with every picture. */
  path(number = this.shown) {
    if (this.known.number === number) return this.known.path;
    const moment = this.moments.get(number);
    if (moment && moment.parent !== null && moment.parent === this.known.number) {
      this.known.path.push(number);
    } else {
      this.known.path = this.walkBack(moment);
    }
    this.known.number = number;
    return this.known.path;
  }

  walkBack(last) {
    const found = [];
    for (let moment = last; moment; moment = this.moments.get(moment.parent)) found.push(moment.number);
    return found.reverse();
  }

  before(number) {
    const parent = this.moments.get(number)?.parent ?? null;
    return this.moments.has(parent) ? parent : null;
  }

  /** Where the player last went from `number`, or else the newest way on. */
  after(number) {
    const children = this.children.get(number) ?? [];
    const visited = this.visited.get(number);
    return children.includes(visited) ? visited : children.at(-1) ?? null;
  }

  /** The moment in the next lane above (-1) or below (1) that has come as far as `number`, or as near as there is. */
  beside(number, direction) {
    const moment = this.moments.get(number);
    if (!moment) return null;
    for (let lane = moment.lane + direction; this.lanes[lane]; lane += direction) {
      if (this.lanes[lane].numbers.length) return this.nearest(lane, moment.steps);
    }
    return null;
  }

  /** The moment of a lane at `steps`, or its end on that side: in a lane each moment is one step after the last. */
  nearest(lane, steps) {
    const { numbers } = this.lanes[lane];
    const first = this.moments.get(numbers[0]).steps;
    return numbers[Math.min(numbers.length - 1, Math.max(0, steps - first))];
  }

  /** Keeps pictures, newest last, and gives up those that were not looked at for longest. */
  keep(number, pictures) {
    const kept = this.pictures.get(number) ?? new Map();
    this.forget(number);
    for (const picture of pictures) kept.set(`${picture.role} ${picture.key}`, picture);
    this.pictures.set(number, kept);
    this.bytes += size(kept);
    while (this.pictures.size > 1 && (this.pictures.size > MOST_PICTURES || this.bytes > MOST_BYTES)) {
      this.forget(this.pictures.keys().next().value);
    }
  }

  forget(number) {
    const kept = this.pictures.get(number);
    if (!kept) return;
    this.bytes -= size(kept);
    this.pictures.delete(number);
  }

  /** A moment's pictures by "role key", or undefined when they have to be asked for again. */
  picturesOf(number) {
    const kept = this.pictures.get(number);
    if (kept) {
      this.pictures.delete(number);
      this.pictures.set(number, kept);
    }
    return kept;
  }
}

function size(pictures) {
  let bytes = 0;
  for (const picture of pictures.values()) bytes += picture.pixels.byteLength;
  return bytes;
}
