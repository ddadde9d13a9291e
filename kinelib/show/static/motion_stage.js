/**
 * One canvas with bodies on a floor, and the hands that turn, move and zoom it. Keys are left to who owns the stage.
 *
 * Drag or one finger: turn. Right button, Shift-drag or two fingers: move. Wheel (once the canvas has the focus, so that a
 * page can be scrolled past it) or a pinch: zoom.
 */
import { Eye } from "./body_eye.js";
import { drawBody, drawFloor, drawLabel, drawShadow, drawStanding, drawTarget, drawWay } from "./body_paint.js";
import { make } from "./dom.js";

export const BODY_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7a6a00", "#6b4fa0"];
export const bodyColour = (sample) => BODY_COLOURS[sample % BODY_COLOURS.length];
const ASPECT = 1.6; // width to height
const GHOST = 0.22; // how solid the samples are that one does not look at

export class MotionStage {
  /** @param {() => void} onchange called when the picture has to be drawn again; `oneye` when the hand has let the eye go */
  constructor(label, onchange, oneye = () => {}) {
    this.canvas = make("canvas", {
      class: "mp-canvas", tabindex: 0, role: "application", "aria-roledescription": "bodies in motion", "aria-label": label,
    });
    this.element = make("div", { class: "mp-stage" }, this.canvas);
    this.context = this.canvas.getContext("2d");
    Object.assign(this, { onchange, oneye, eye: new Eye(), clips: null, width: 0, height: 0, fingers: new Map(), fitted: true });
    this.watcher = new ResizeObserver(() => this.resize() && onchange());
    this.watcher.observe(this.canvas);
    this.listen();
  }

  /** New bodies: the eye keeps its directions and moves so that all of them are seen. */
  show(clips) {
    this.clips = clips;
    this.fitted = true;
    this.fit();
    this.onchange();
  }

  offset(clip, apart) {
    return apart ? clip.offset : [0, 0];
  }

  /** Everything that has to fit: all bodies over time, about the middle that the eye follows, or where they really are. */
  fit(follow = this.follow, apart = this.apart ?? true) {
    Object.assign(this, { follow, apart });
    const { clips } = this;
    if (!clips?.list.length || !this.width) return;
    const cloud = [];
    const start = clips.centre(0);
    for (const clip of clips.list) {
      const [ox, oz] = this.offset(clip, apart);
      const every = Math.max(1, Math.floor(clip.frames / 24));
      for (let frame = 0; frame < clip.frames; frame += every) {
        const places = clip.at(frame / clip.fps);
        const [cx, cz] = follow ? clips.centre(frame / clip.fps).map((value, axis) => value - start[axis]) : [0, 0];
        for (let p = 0; p < clip.points; p++) {
          cloud.push(places[3 * p] + ox - cx, places[3 * p + 1], places[3 * p + 2] + oz - cz);
        }
      }
    }
    this.eye.fit(cloud, this.width / this.height);
    this.fitted = true;
  }

  resize() {
    const width = this.canvas.clientWidth;
    const height = Math.round(Math.max(width / ASPECT, Math.min(width, 260)));
    const scale = window.devicePixelRatio || 1;
    if (!width || (width === this.width && scale === this.scale)) return false;
    Object.assign(this, { width, height, scale });
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    if (this.fitted) this.fit();
    return true;
  }

  /** Where the bodies' middle has gone since the start, which the eye goes along with. */
  drift(seconds) {
    if (!this.follow || !this.clips?.list.length) return [0, 0];
    const start = this.clips.centre(0);
    return this.clips.centre(seconds).map((value, axis) => value - start[axis]);
  }

  /** @param {object} moment {seconds, trail (seconds), colour, apart, follow, contacts, named, focus, targets, alpha} */
  draw(moment) {
    const { context, clips, eye } = this;
    if (!this.width) return;
    const style = getComputedStyle(this.canvas);
    const ground = style.getPropertyValue("--mp-ground").trim() || "#f7f9fc";
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.fillStyle = ground;
    context.fillRect(0, 0, this.width, this.height);
    if (!clips) return;
    Object.assign(this, { follow: moment.follow, apart: moment.apart });
    const drift = this.drift(moment.seconds);
    const kept = [...eye.target];
    eye.target = [kept[0] + drift[0], kept[1], kept[2] + drift[1]];
    const lens = eye.lens(this.width, this.height);
    const centre = [eye.target[0], eye.target[2]];
    eye.target = kept;
    drawFloor(context, lens, centre, Math.round(Math.min(12, Math.max(4, eye.distance))), style.getPropertyValue("--mp-grid").trim());
    const ink = style.getPropertyValue("--mp-ink").trim();
    const shown = clips.list.map((clip, index) => {
      const solid = moment.focus < 0 || moment.focus === index;
      const places = clip.at(moment.seconds);
      const offset = this.offset(clip, moment.apart);
      const colour = moment.colour === "samples" ? bodyColour(index) : "";
      const middle = 3 * clip.middle;
      lens.look(places[middle] + offset[0], places[middle + 1], places[middle + 2] + offset[1]);
      return { clip, index, solid, places, offset, colour, near: lens.seen[2] };
    });
    for (const { clip, places, offset, solid, index, colour } of shown) {
      if (solid) drawShadow(context, lens, clip, places, offset);
      if (moment.trail > 0) this.drawTrail(lens, clip, offset, moment, colour || (shown.length > 1 ? bodyColour(index) : ink), solid);
      const standing = moment.contacts && solid ? clip.standing(moment.seconds) : null;
      if (standing) drawStanding(context, lens, clip, places, offset, standing);
    }
    for (const target of moment.targets ?? []) {
      for (const { clip, offset, solid } of moment.apart ? shown : shown.slice(0, 1)) if (solid) drawTarget(context, lens, target, clip, offset, moment.seconds);
    }
    shown.sort((one, other) => one.solid - other.solid || one.near - other.near);
    for (const { clip, places, offset, colour, solid } of shown) {
      drawBody(context, lens, clip, places, offset, colour, solid ? moment.alpha : GHOST);
    }
    if (moment.named) for (const one of shown) if (one.solid && one.clip.label) this.drawName(lens, one, shown.length, ground, ink);
  }

  drawTrail(lens, clip, offset, { seconds, trail }, colour, solid) {
    const [from, until] = [clip.frame(seconds - trail), clip.frame(seconds)];
    const way = [];
    for (let frame = from; frame <= until; frame++) way.push(clip.way(frame));
    drawWay(this.context, lens, way, offset, colour, 2.5, solid ? 0.75 : GHOST);
  }

  drawName(lens, { clip, index, places, offset, colour }, count, ground, ink) {
    let top = 0;
    for (let p = 1; p < clip.points; p++) if (places[3 * p + 1] > places[3 * top + 1]) top = p;
    const [x, y] = lens.look(places[3 * top] + offset[0], places[3 * top + 1] + 0.2, places[3 * top + 2] + offset[1]);
    if (x < 0 || x > this.width || y < -12 || y > this.height) return; // whose head is not seen
    const room = Math.max(6, Math.floor(this.width / Math.max(count, 1) / 7));
    const words = count > 1 && clip.label.length > room ? String(index + 1) : clip.label.slice(0, 60);
    drawLabel(this.context, words, Math.min(this.width - 20, Math.max(20, x)), Math.max(12, y), colour || ink, ground);
  }

  // ---- hands

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.up(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  down(event) {
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    this.slides = event.button === 2 || event.shiftKey;
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
    const others = [...this.fingers].filter(([id]) => id !== event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    this.fitted = false;
    if (others.length) {
      const [, [x, y]] = others[0];
      const gap = (place) => Math.hypot(place[0] - x, place[1] - y);
      this.eye.zoom(Math.max(gap(before), 10) / Math.max(gap([event.clientX, event.clientY]), 10));
      this.eye.pan(dx / 2, dy / 2, this.height);
    } else if (this.slides) this.eye.pan(dx, dy, this.height);
    else this.eye.turn(-dx * 0.008, dy * 0.008);
    this.onchange();
  }

  up(event) {
    if (this.fingers.delete(event.pointerId) && !this.fingers.size) this.oneye();
  }

  wheel(event) {
    if (!event.ctrlKey && document.activeElement !== this.canvas && !this.canvas.matches(":focus")) return;
    event.preventDefault();
    this.fitted = false;
    this.eye.zoom(Math.exp(Math.max(-80, Math.min(80, event.deltaY)) * 0.0025));
    this.onchange();
    this.oneye();
  }

  dispose() {
    this.watcher.disconnect();
  }
}
