// Asking again for what this page does not have: moments from before a reload, pictures that made room for others.

const MOST_AT_ONCE = 64; // moments in one "show"

export class Fetching {
  constructor(connection, walk) {
    Object.assign(this, { connection, walk });
  }

  /** The walk receives what comes; the promise ends when all of it has come. */
  async fetch(numbers) {
    for (let i = 0; i < numbers.length; i += MOST_AT_ONCE) {
      await this.connection.ask("show", { moments: numbers.slice(i, i + MOST_AT_ONCE) });
    }
  }

  /** After a reload, or where a beginning was watched first: the whole tree. Its pictures come when they are looked at. */
  async restore() {
    const { moments } = await this.connection.ask("tree");
    this.walk.replant(moments);
  }

  /** Asks for what a moment lacks of `roles`, once for each set. `key` is a picture, if the model has any. */
  complete(moment, key, roles) {
    const kept = this.walk.picturesOf(moment.number);
    // What is true comes whole, pictures and numbers; where nobody knows it, that was an answer too.
    const has = (role) => (role === "real" ? moment.real !== null : key === undefined || kept?.has(`${role} ${key}`));
    const missing = roles.filter((role) => !has(role)).join(" ");
    if (!missing || moment.asked === missing) return;
    moment.asked = missing;
    this.fetch([moment.number]).catch(() => {});
  }
}
