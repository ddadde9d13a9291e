/**
 * One picture with what is drawn over it. A canvas has one stage, the compare view has two of the same pokes.
 *
 * The still part (picture, whole futures faintly) is kept in a second bitmap, so that playing only draws trails and points.
 */
import { make } from "./dom.js";
import { density } from "./futures.js";
import { drawCross, drawField, drawHeads, drawPaths, drawPoke, drawQuestion, drawWheel, heatImage } from "./paint.js";

const CELLS = 72; // a side of the density map
const VEIL = { futures: 0.28, field: 0.55, where: 0.35 }; // how much white lies over the picture, so that lines stand out

export class Stage {
  /** @param {string} label what a screen reader calls it */
  constructor(label, onresize) {
    this.canvas = make("canvas", {
      class: "pk-canvas", tabindex: 0, role: "application", "aria-roledescription": "picture to poke", "aria-label": label,
    });
    this.caption = make("figcaption", { class: "pk-caption" });
    this.element = make("figure", { class: "pk-stage" }, this.canvas, this.caption);
    this.context = this.canvas.getContext("2d");
    this.still = document.createElement("canvas");
    this.heat = make("canvas", { width: CELLS, height: CELLS });
    this.picture = null;
    this.futures = this.field = this.where = null;
    this.aspect = 1;
    this.width = this.height = 0;
    this.toPixels = (x, y) => [((x + 1) / 2) * this.width, ((y + 1) / 2) * this.height];
    this.watcher = new ResizeObserver(() => this.resize() && onresize());
    this.watcher.observe(this.canvas);
  }

  /** xy in [-1, 1] of a pointer event. */
  toXY(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(2 * (event.clientX - box.left)) / box.width - 1, (2 * (event.clientY - box.top)) / box.height - 1];
  }

  setPicture(picture, [width, height]) {
    this.picture = picture;
    this.aspect = width / height;
    this.element.style.setProperty("--aspect", width / height);
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    this.stale = true;
    this.resize();
  }

  resize() {
    const width = this.canvas.clientWidth;
    const height = Math.round(width / this.aspect);
    const scale = window.devicePixelRatio || 1;
    if (!width || (width === this.width && height === this.height && scale === this.scale)) return false;
    Object.assign(this, { width, height, scale, stale: true });
    for (const canvas of [this.canvas, this.still]) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    return true;
  }

  /** The picture and, faintly, whole futures: drawn again only when one of them, the focus or the size has changed. */
  drawStill(view, focus) {
    const kind = `${view} ${focus}`;
    if (!this.stale && this.kind === kind) return;
    Object.assign(this, { stale: false, kind });
    const context = this.still.getContext("2d");
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.imageSmoothingQuality = "high";
    if (this.picture) context.drawImage(this.picture, 0, 0, this.width, this.height);
    const shown = { futures: this.futures, field: this.field, where: this.where }[view];
    if (!shown) return;
    context.fillStyle = view === "field" ? `rgba(8, 12, 20, ${VEIL.field})` : `rgba(255, 255, 255, ${VEIL[view]})`;
    context.fillRect(0, 0, this.width, this.height);
    if (view !== "futures") return;
    context.globalAlpha = 0.42;
    drawPaths(context, this.toPixels, shown, focus, 0, 1, 1);
    context.globalAlpha = 1;
  }

  /**
   * Draws a moment.
   * @param {object} moment {view, focus, time, trail, alpha, pokes, draft, question, cross}
   */
  draw(moment) {
    if (!this.width) return;
    const { view, focus, time, alpha } = moment;
    const context = this.context;
    this.drawStill(view, focus);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalAlpha = 1;
    context.drawImage(this.still, 0, 0);
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    const to = this.toPixels;
    if (view === "futures" && this.futures) {
      context.globalAlpha = alpha;
      drawPaths(context, to, this.futures, focus, Math.max(0, time - moment.trail), time, 2, 2);
      drawHeads(context, to, this.futures, focus, time, Math.min(3.4, Math.max(2, this.width / 190)));
    } else if (view === "field" && this.field) {
      drawField(context, to, this.field, Math.max(0, Math.min(focus, this.field.samples - 1)), time);
      drawWheel(context, this.width - 26, 26, 15);
    } else if (view === "where" && this.where) {
      this.drawWhere(time);
    }
    context.globalAlpha = 1;
    // The offline page answers with futures of a stored poke: it is shown, faintly, so that nobody takes them for the hand's.
    const stored = this.futures?.facts.stored;
    if (stored && view !== "where") drawPoke(context, to, [...stored, 1], { ghost: true });
    moment.pokes.forEach((poke, index) => {
      const facts = { selected: index === moment.selected, number: moment.pokes.length > 1 ? index + 1 : 0 };
      drawPoke(context, to, poke, facts);
    });
    if (moment.draft) drawPoke(context, to, moment.draft, { ghost: true });
    if (view === "where" && moment.question) drawQuestion(context, to(...moment.question));
    if (moment.cross) drawCross(context, to(...moment.cross));
  }

  drawWhere(time) {
    const heat = this.heat.getContext("2d");
    heat.putImageData(heatImage(density(this.where, time, CELLS), CELLS), 0, 0);
    this.context.imageSmoothingEnabled = true;
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(this.heat, 0, 0, this.width, this.height);
    this.context.fillStyle = "rgba(255, 255, 255, 0.85)";
    const place = [0, 0];
    this.context.beginPath();
    for (let sample = 0; sample < this.where.samples; sample++) {
      this.where.at(sample * this.where.points, time, place);
      const [x, y] = this.toPixels(...place);
      this.context.moveTo(x + 1.4, y);
      this.context.arc(x, y, 1.4, 0, 2 * Math.PI);
    }
    this.context.fill();
  }

  dispose() {
    this.watcher.disconnect();
  }
}
