// Asking again for what this page does not have: moments from before a reload, pictures that made room for others.

const MOST_AT_ONCE = 64; // moments in one "show"
const MOST_RESTORED = 2_000;
const HIGHEST = "worldloom-highest";

export class Fetching {
  constructor(connection, walk) {
    Object.assign(this, { connection, walk, highest: null });
  }

  /** The walk receives what comes; the promise ends when all of it has come. */
  async fetch(numbers) {
    for (let i = 0; i < numbers.length; i += MOST_AT_ONCE) {
      await this.connection.ask("show", { moments: numbers.slice(i, i + MOST_AT_ONCE) });
    }
  }

  /** After a reload, or where a beginning was watched first: everything that the page does not know of the tree. */
  async restore(here) {
    const remembered = Number(sessionStorage.getItem(HIGHEST)) || 0;
    try {
      await this.restoreUpTo(Math.max(here, remembered));
    } catch (error) {
      // What was remembered belongs to another tree; the way to here is there in any case.
      if (error.code === "refused" && remembered > here) await this.restoreUpTo(here).catch(() => {});
    }
  }

  async restoreUpTo(highest) {
    const wanted = [];
    for (let number = highest; number >= Math.max(0, highest - MOST_RESTORED); number -= 1) {
      if (!this.walk.moments.has(number)) wanted.push(number);
    }
    if (!wanted.length) return;
    await this.fetch(wanted);
    this.walk.relay();
    if (this.walk.here !== null) this.walk.walkTo(this.walk.here);
  }

  /** For a reload: how far the tree went. */
  remember() {
    if (this.highest === this.walk.highest) return;
    this.highest = this.walk.highest;
    sessionStorage.setItem(HIGHEST, String(this.highest));
  }

  /** Asks for pictures of `moment` that are missing, once for each set of `roles`. */
  complete(moment, key, roles) {
    const kept = this.walk.picturesOf(moment.number);
    const missing = roles.filter((role) => !kept?.has(`${role} ${key}`)).join(" ");
    if (!missing || moment.asked === missing) return;
    moment.asked = missing;
    this.fetch([moment.number]).catch(() => {});
  }
}
