/**
 * The floor from above: waypoints with headings, drawn paths, where keys stand, and the ways of what was generated.
 *
 * A bird's view that flies along +z: forward is up, the body's left is left, so x grows leftwards. Tap: a waypoint, or select
 * one; drag a waypoint to move it, its knob to turn it; with the pen, drag a path. Keys: arrows move what is selected, [ and ]
 * turn it, N goes on to the next, Delete removes.
 */
import { AMBER, BROWN } from "./body_paint.js";
import { make } from "./dom.js";
import { bodyColour } from "./motion_stage.js";

const KNOB = 30; // pixels from a waypoint to the knob of its heading
const REACH = 13; // pixels
const APART = 0.12; // metres between two points of a drawn path

export class FloorPlan {
  /** @param {object} author as for `Lanes`, and {addWaypoint(x, z), addPath(points), keyPlace(key), ways(), now()} */
  constructor(author) {
    this.author = author;
    this.tool = "waypoint";
    this.canvas = make("canvas", {
      class: "tl-plan", tabindex: 0, role: "application", "aria-roledescription": "floor plan",
      "aria-label": "Floor from above, forward is up. Tap to add a waypoint. Arrows move the selected one, [ and ] turn it, N selects the next, Delete removes it.",
    });
    this.context = this.canvas.getContext("2d");
    Object.assign(this, { centre: [0, 1.5], half: 3, drawn: null, hand: null, size: 0 });
    this.watcher = new ResizeObserver(() => this.resize());
    this.watcher.observe(this.canvas);
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) this.canvas.addEventListener(kind, (event) => this.up(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  resize() {
    const size = this.canvas.clientWidth;
    const scale = window.devicePixelRatio || 1;
    if (!size) return;
    Object.assign(this, { size, scale });
    this.canvas.width = this.canvas.height = Math.round(size * scale);
    this.draw();
  }

  /** Metres to pixels and back. */
  to([x, z]) {
    const metre = this.size / (2 * this.half);
    return [this.size / 2 - (x - this.centre[0]) * metre, this.size / 2 - (z - this.centre[1]) * metre];
  }

  from(event) {
    const box = this.canvas.getBoundingClientRect();
    const metre = this.size / (2 * this.half);
    return [this.centre[0] - (event.clientX - box.left - this.size / 2) / metre, this.centre[1] - (event.clientY - box.top - this.size / 2) / metre];
  }

  /** All that is asked for and generated has to be seen; the view stays while a hand draws. */
  fit() {
    if (this.hand) return;
    const { script } = this.author;
    const places = [[0, 0], [0, 2], ...script.waypoints.map((one) => [one.x, one.z]), ...script.paths.flatMap((path) => path.points),
      ...script.keys.map((key) => this.author.keyPlace(key)), ...this.author.ways().flat()];
    const low = [0, 1].map((axis) => Math.min(...places.map((place) => place[axis])));
    const high = [0, 1].map((axis) => Math.max(...places.map((place) => place[axis])));
    this.centre = low.map((value, axis) => (value + high[axis]) / 2);
    this.half = Math.max(2.5, 0.62 * Math.max(high[0] - low[0], high[1] - low[1]) + 0.6);
  }

  // ---- hands

  hit(event) {
    const box = this.canvas.getBoundingClientRect();
    const at = [event.clientX - box.left, event.clientY - box.top];
    const reach = event.pointerType === "touch" ? 2 * REACH : REACH;
    const near = ([x, y]) => Math.hypot(x - at[0], y - at[1]) <= reach;
    const { script } = this.author;
    for (let index = script.waypoints.length - 1; index >= 0; index--) {
      const one = script.waypoints[index];
      const place = this.to([one.x, one.z]);
      if (this.author.isSelected("waypoints", index) && near(this.knob(one, place))) return { kind: "waypoints", index, turns: true };
      if (near(place)) return { kind: "waypoints", index };
    }
    const key = script.keys.findIndex((one) => near(this.to(this.author.keyPlace(one))));
    return key < 0 ? null : { kind: "keys", index: key };
  }

  knob(one, [x, y]) {
    const heading = one.heading ?? 0;
    return [x - KNOB * Math.sin(heading), y - KNOB * Math.cos(heading)];
  }

  down(event) {
    if (event.button || this.hand) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const hit = this.hit(event);
    const at = this.from(event);
    this.hand = { id: event.pointerId, x: event.clientX, y: event.clientY, hit, at, moved: false };
    if (!hit && this.tool === "path") this.drawn = [at];
    if (hit) this.author.select(hit.kind, hit.index);
  }

  move(event) {
    const { hand } = this;
    if (hand?.id !== event.pointerId) return;
    if (!hand.moved && Math.hypot(event.clientX - hand.x, event.clientY - hand.y) < 4) return;
    hand.moved = true;
    const [x, z] = this.from(event);
    if (this.drawn) {
      const last = this.drawn.at(-1);
      if (Math.hypot(x - last[0], z - last[1]) >= APART) this.drawn.push([round2(x), round2(z)]);
      this.draw();
    } else if (hand.hit) {
      const one = this.author.script[hand.hit.kind][hand.hit.index];
      if (hand.hit.turns) one.heading = round2(Math.atan2(x - one.x, z - one.z));
      else Object.assign(one, { x: round2(x), z: round2(z) });
      this.author.draft();
    }
  }

  up(event) {
    const { hand } = this;
    if (hand?.id !== event.pointerId) return;
    this.hand = null;
    const drawn = this.drawn;
    this.drawn = null;
    if (event.type === "pointercancel") return this.author.forget();
    if (drawn && drawn.length > 1) return this.author.addPath([drawn[0].map(round2), ...drawn.slice(1)]);
    if (hand.hit && hand.moved) return this.author.commit(hand.hit.turns ? "turned" : "moved");
    if (!hand.hit && !hand.moved && !drawn) return this.author.addWaypoint(...hand.at.map(round2));
    return this.draw();
  }

  key(event) {
    const { author } = this;
    const { selected, script } = author;
    const step = event.shiftKey ? 0.5 : 0.1;
    const shift = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
    const one = selected && script[selected.kind]?.[selected.index];
    const movable = one && selected.kind !== "prompts" && selected.kind !== "paths";
    const name = event.key.toLowerCase();
    if (shift && movable) {
      const [x, z] = selected.kind === "keys" ? author.keyPlace(one) : [one.x, one.z];
      Object.assign(one, { x: round2(x + shift[0]), z: round2(z + shift[1]) });
      author.commit(`x ${one.x.toFixed(1)}, z ${one.z.toFixed(1)}`);
    } else if ("[]".includes(event.key) && movable) {
      const field = selected.kind === "keys" ? "turn" : "heading";
      one[field] = round2((one[field] ?? 0) + (event.key === "[" ? 1 : -1) * (Math.PI / 12));
      author.commit(`turned to ${Math.round((one[field] * 180) / Math.PI)} degrees`);
    } else if (event.key === "Enter" || event.key === " ") author.addWaypoint(...this.centre.map(round2));
    else if (name === "n" && script.waypoints.length) {
      const index = selected?.kind === "waypoints" ? (selected.index + 1) % script.waypoints.length : 0;
      author.select("waypoints", index);
    } else if ((event.key === "Delete" || event.key === "Backspace") && one) author.remove(selected.kind, selected.index);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // ---- what is drawn

  draw() {
    const { context, author, size } = this;
    if (!size) return;
    this.fit();
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.fillStyle = colour("--mp-ground");
    context.fillRect(0, 0, size, size);
    context.lineJoin = context.lineCap = "round";
    this.drawMetres(colour("--mp-grid"), colour("--mp-ink"));
    author.ways().forEach((way, index, all) => this.line(way, all.length > 1 ? bodyColour(index) : "#0072b2", 2, 0.85));
    author.script.paths.forEach((path, index) => this.line(path.points, AMBER, author.isSelected("paths", index) ? 8 : 6, 0.6));
    if (this.drawn) this.line(this.drawn, AMBER, 6, 0.9);
    author.script.keys.forEach((key, index) => this.drawKey(key, author.isSelected("keys", index)));
    author.script.waypoints.forEach((one, index) => this.drawWaypoint(one, index, author.isSelected("waypoints", index), colour("--mp-ink")));
    author.now().forEach(([x, z], index, all) => this.dot(this.to([x, z]), 5, all.length > 1 ? bodyColour(index) : "#0072b2", "#ffffff"));
  }

  drawMetres(grid, ink) {
    const { context, size } = this;
    const every = this.half > 12 ? 5 : this.half > 6 ? 2 : 1;
    context.lineWidth = 1;
    context.font = "10px system-ui, sans-serif";
    for (const axis of [0, 1]) {
      const first = Math.ceil((this.centre[axis] - this.half) / every) * every;
      for (let metre = first; metre <= this.centre[axis] + this.half; metre += every) {
        const at = this.to(axis ? [0, metre] : [metre, 0])[axis];
        context.strokeStyle = grid;
        context.globalAlpha = metre ? 0.55 : 1;
        context.beginPath();
        context.moveTo(axis ? 0 : at, axis ? at : 0);
        context.lineTo(axis ? size : at, axis ? at : size);
        context.stroke();
        context.globalAlpha = 0.6;
        context.fillStyle = ink;
        context.textAlign = axis ? "left" : "center";
        context.textBaseline = axis ? "middle" : "bottom";
        if (at > 12 && at < size - 16) context.fillText(`${metre}${metre === first + every ? " m" : ""}`, axis ? 4 : at, axis ? at - 6 : size - 3);
      }
    }
    context.globalAlpha = 1;
  }

  line(points, colour, width, alpha) {
    const { context } = this;
    context.globalAlpha = alpha;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    points.forEach((point, index) => (index ? context.lineTo(...this.to(point)) : context.moveTo(...this.to(point))));
    context.stroke();
    context.globalAlpha = 1;
  }

  dot([x, y], radius, fill, rim, width = 2) {
    const { context } = this;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = fill;
    context.fill();
    context.lineWidth = width;
    context.strokeStyle = rim;
    context.stroke();
  }

  drawWaypoint(one, index, selected, ink) {
    const { context } = this;
    const place = this.to([one.x, one.z]);
    const turned = one.heading !== null && one.heading !== undefined;
    if (turned || selected) {
      const knob = this.knob(one, place);
      context.globalAlpha = turned ? 1 : 0.45;
      context.strokeStyle = BROWN;
      context.lineWidth = 2;
      context.setLineDash(turned ? [] : [3, 3]);
      context.beginPath();
      context.moveTo(...place);
      context.lineTo(...knob);
      context.stroke();
      context.setLineDash([]);
      this.dot(knob, 5, turned ? BROWN : "#ffffff", BROWN);
      context.globalAlpha = 1;
    }
    this.dot(place, selected ? 9 : 7.5, AMBER, selected ? "#0072b2" : BROWN, selected ? 3 : 2);
    context.fillStyle = "#3d2d00";
    context.font = "700 10px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(String(index + 1), place[0], place[1] + 0.5);
    context.fillStyle = ink;
    context.font = "10px system-ui, sans-serif";
    context.textAlign = "left";
    context.fillText(`${one.seconds.toFixed(1)} s`, place[0] + 13, place[1] + 1);
  }

  drawKey(key, selected) {
    const { context } = this;
    const [x, y] = this.to(this.author.keyPlace(key));
    const radius = selected ? 8 : 6.5;
    context.beginPath();
    for (const [dx, dy] of [[0, -1], [1, 0], [0, 1], [-1, 0]]) context.lineTo(x + radius * dx, y + radius * dy);
    context.closePath();
    context.fillStyle = key.part.startsWith("left") ? "#0072b2" : key.part.startsWith("right") ? "#d55e00" : "#555e6d";
    context.fill();
    context.lineWidth = selected ? 3 : 1.5;
    context.strokeStyle = selected ? "#56b4e9" : "#ffffff";
    context.stroke();
  }

  dispose() {
    this.watcher.disconnect();
  }
}

export const round2 = (value) => Math.round(value * 100) / 100;
