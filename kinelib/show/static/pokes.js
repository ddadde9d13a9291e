/**
 * The list of pokes and its history: add, change, remove, undo, redo, clear, and which end is under a pointer.
 *
 * A poke is [x, y, goal x, goal y, goal time], xy in [-1, 1] and time in (0, 1]: "the point at (x, y) shall be at
 * (goal x, goal y) then". A poke whose goal is its start asks the point to hold still. No drawing here.
 */

const inside = (value) => Math.min(1, Math.max(-1, value));
const round = (value) => Math.round(value * 1e4) / 1e4;

/** A sound poke: start inside the picture, numbers short enough to read. */
export function sound([x, y, goalX, goalY, time = 1]) {
  return [inside(x), inside(y), goalX, goalY, Math.min(1, Math.max(0.02, time))].map(round);
}

export const isHold = (poke) => poke[0] === poke[2] && poke[1] === poke[3];

export class PokeList {
  constructor(pokes = [], most = 16) {
    this.list = pokes.map(sound);
    this.most = most;
    this.selected = -1;
    this.past = [];
    this.future = [];
  }

  /** Takes over a list from elsewhere (Python); it can be undone like the hand's own changes. */
  replace(pokes) {
    if (JSON.stringify(pokes) === JSON.stringify(this.list)) return false;
    this.remember();
    this.list = pokes.map((poke) => [...poke]);
    this.selected = Math.min(this.selected, this.list.length - 1);
    return true;
  }

  remember() {
    this.past.push(JSON.stringify(this.list));
    if (this.past.length > 200) this.past.shift();
    this.future = [];
  }

  get full() {
    return this.list.length >= this.most;
  }

  /** Adds a poke; where there is room for one only, the new one takes its place. */
  add(poke) {
    if (this.full && this.most > 1) return false;
    this.remember();
    this.list = [...(this.full ? [] : this.list), sound(poke)];
    this.selected = this.list.length - 1;
    return true;
  }

  change(index, poke) {
    this.remember();
    this.list = this.list.map((old, i) => (i === index ? sound(poke) : old));
  }

  remove(index) {
    if (!this.list[index]) return false;
    this.remember();
    this.list = this.list.filter((_, i) => i !== index);
    this.selected = -1;
    return true;
  }

  clear() {
    if (!this.list.length) return false;
    this.remember();
    this.list = [];
    this.selected = -1;
    return true;
  }

  undo() {
    return this.travel(this.past, this.future);
  }

  redo() {
    return this.travel(this.future, this.past);
  }

  travel(from, to) {
    if (!from.length) return false;
    to.push(JSON.stringify(this.list));
    this.list = JSON.parse(from.pop());
    this.selected = Math.min(this.selected, this.list.length - 1);
    return true;
  }

  /**
   * The end under a pointer: {index, end: "start" | "goal"} or null; the nearest one within `reach` pixels.
   * @param {(x: number, y: number) => [number, number]} toPixels of the stage
   */
  hit(pixelX, pixelY, toPixels, reach) {
    let best = null;
    let nearest = reach;
    this.list.forEach((poke, index) => {
      for (const end of ["start", "goal"]) {
        const [x, y] = end === "start" ? toPixels(poke[0], poke[1]) : toPixels(poke[2], poke[3]);
        const far = Math.hypot(x - pixelX, y - pixelY);
        // Of a hold, whose ends coincide, the goal is meant: pulling it makes a move of it.
        if (far < nearest || (far === nearest && best?.index === index)) {
          nearest = far;
          best = { index, end };
        }
      }
    });
    return best;
  }
}
