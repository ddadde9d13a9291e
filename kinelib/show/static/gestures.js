/**
 * Hands on a stage: mouse, pen, finger and keys become pokes.
 *
 * Drag: a poke, with a live arrow. Tap: hold this point still (or, in the "where" view, ask about it). Drag an end: change it.
 * Keys: arrows move a cross; Enter plants the start, arrows move the goal, Enter ends it; N selects, Delete removes, Esc
 * gives up. Everything is reported through `hands`: {pokes, view(), draft(poke), changed(what), ask(xy), drawn(), say(text)}.
 */
import { isHold, sound } from "./pokes.js";

const TAP = 6; // pixels within which a press is a tap and not a drag

export class Gestures {
  constructor(stage, hands) {
    this.stage = stage;
    this.hands = hands;
    this.cross = null; // where the keys are, once they are used
    this.drag = null;
    this.planted = null; // start of a poke made by keys
    const canvas = stage.canvas;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", () => this.giveUp());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => {
      this.cross = this.planted = null;
      hands.draft(null);
    });
  }

  down(event) {
    if (event.button !== 0 || this.drag) return;
    event.preventDefault();
    this.stage.canvas.focus({ preventScroll: true });
    this.stage.canvas.setPointerCapture(event.pointerId);
    this.cross = this.planted = null;
    const reach = event.pointerType === "mouse" ? 14 : 24;
    const at = this.stage.toXY(event);
    const hit = this.hands.pokes.hit(...this.stage.toPixels(...at), this.stage.toPixels, reach);
    const base = hit ? this.hands.pokes.list[hit.index] : null;
    this.drag = { id: event.pointerId, x: event.clientX, y: event.clientY, at, hit, base, moved: false };
  }

  move(event) {
    const drag = this.drag;
    if (!drag || drag.id !== event.pointerId) {
      this.stage.canvas.style.cursor = this.over(event) ? "grab" : "crosshair";
      return;
    }
    if (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < TAP) return;
    drag.moved = true;
    this.hands.draft(this.pulled(event), drag.hit?.index);
  }

  over(event) {
    return this.hands.pokes.hit(...this.stage.toPixels(...this.stage.toXY(event)), this.stage.toPixels, 14);
  }

  /** The poke that would be made or changed if the hand let go here. */
  pulled(event) {
    const { at, hit, base } = this.drag;
    const [x, y] = this.stage.toXY(event);
    if (!hit) return sound([...at, x, y, this.hands.time()]);
    return sound(hit.end === "goal" ? [base[0], base[1], x, y, base[4]] : [x, y, base[2], base[3], base[4]]);
  }

  up(event) {
    const drag = this.drag;
    if (!drag || drag.id !== event.pointerId) return;
    const { pokes } = this.hands;
    const poke = drag.moved ? this.pulled(event) : null;
    this.drag = null;
    this.hands.draft(null);
    if (drag.hit && poke) {
      pokes.change(drag.hit.index, poke);
      pokes.selected = drag.hit.index;
      this.hands.changed(`poke ${drag.hit.index + 1} changed`);
    } else if (drag.hit) {
      pokes.selected = pokes.selected === drag.hit.index ? -1 : drag.hit.index;
      this.hands.drawn();
    } else if (poke) this.add(poke);
    else if (this.hands.view() === "where") this.hands.ask(drag.at);
    else this.add([...drag.at, ...drag.at, this.hands.time()]);
  }

  add(poke) {
    const { pokes } = this.hands;
    if (!pokes.add(poke)) return this.hands.say(`this model takes at most ${pokes.most} pokes; remove one first`);
    const [x, y, goalX, goalY] = pokes.list.at(-1).map((value) => value.toFixed(2));
    this.hands.changed(isHold(pokes.list.at(-1)) ? `hold still at ${x}, ${y}` : `poke from ${x}, ${y} to ${goalX}, ${goalY}`);
  }

  giveUp() {
    this.drag = this.planted = null;
    this.hands.draft(null);
  }

  key(event) {
    const { pokes } = this.hands;
    const step = event.shiftKey ? 0.16 : 0.04;
    const shift = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    const control = event.ctrlKey || event.metaKey;
    const name = event.key.toLowerCase();
    if (shift && !control) this.shift(shift);
    else if (event.key === "Enter" || event.key === " ") this.plant();
    else if (event.key === "Escape") this.giveUp();
    else if ((event.key === "Delete" || event.key === "Backspace") && pokes.remove(pokes.selected)) {
      this.hands.changed("poke removed");
    } else if (name === "n" && !control && pokes.list.length) {
      pokes.selected = (pokes.selected + 1) % pokes.list.length;
      this.hands.say(`poke ${pokes.selected + 1} of ${pokes.list.length} selected`);
      this.hands.drawn();
    } else if (control && name === "z" && !event.shiftKey) this.hands.travel("undo");
    else if (control && (name === "y" || (name === "z" && event.shiftKey))) this.hands.travel("redo");
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  shift([dx, dy]) {
    const [x, y] = this.cross ?? [-dx, -dy];
    // The goal may lie outside the picture, the start may not.
    const most = this.planted ? 1.2 : 1;
    const within = (value) => Math.min(most, Math.max(-most, value));
    this.cross = [within(x + dx), within(y + dy)];
    this.hands.draft(this.planted ? sound([...this.planted, ...this.cross, this.hands.time()]) : null);
    this.hands.say(`${this.planted ? "goal" : "point"} ${this.cross.map((value) => value.toFixed(2)).join(", ")}`);
  }

  plant() {
    this.cross ??= [0, 0];
    if (this.hands.view() === "where") return this.hands.ask(this.cross);
    if (!this.planted) {
      this.planted = [...this.cross];
      this.hands.say("start planted; arrows move the goal, Enter ends the poke");
      return this.hands.drawn();
    }
    const poke = [...this.planted, ...this.cross, this.hands.time()];
    this.planted = null;
    this.hands.draft(null);
    return this.add(poke);
  }
}
