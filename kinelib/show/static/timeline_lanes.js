/**
 * The timeline: a ruler, sentences one after the other, and a lane for the root and for each part of the body.
 *
 * Drag an edge of a sentence to change how long it lasts (2 to 10 s), drag a mark to another time, click an empty place of a
 * lane to add a mark. Everything is an element that can be reached with Tab: arrows move it, Delete removes it.
 */
import { make } from "./dom.js";

export const LANES = [
  ["root", "Root"],
  ["full_body", "Full body"],
  ["left_hand", "Left hand"],
  ["right_hand", "Right hand"],
  ["left_foot", "Left foot"],
  ["right_foot", "Right foot"],
];
const SHORTEST = 2;
const LONGEST = 10;
const SLACK = 4; // pixels within which a press is a click and not a drag
const tenth = (value) => Math.round(value * 10) / 10;

export class Lanes {
  /** @param {object} author {script, selected, seconds(), snap(seconds), select(kind, index), draft(), commit(words), addAt(lane, seconds), remove(), seek(seconds)} */
  constructor(author) {
    this.author = author;
    this.playhead = make("div", { class: "tl-playhead" });
    this.ruler = make("div", { class: "tl-lane tl-ruler", onpointerdown: (event) => this.scrub(event), onpointermove: (event) => event.buttons && this.scrub(event) });
    this.prompts = make("div", { class: "tl-lane tl-prompts" });
    this.lanes = LANES.map(([name, label]) =>
      make("div", { class: "tl-lane", "data-lane": name, title: `Click to add to ${label.toLowerCase()}`, onclick: (event) => this.add(event, name) }),
    );
    const row = (label, lane) => make("div", { class: "tl-row" }, make("span", { class: "tl-label", text: label }), lane);
    this.element = make("div", { class: "tl-lanes", role: "group", "aria-label": "Timeline" },
      row("Time", this.ruler), row("Prompts", this.prompts), ...this.lanes.map((lane, index) => row(LANES[index][1], lane)),
      make("div", { class: "tl-over" }, this.playhead));
  }

  /** How many seconds the width shows. */
  span() {
    return this.frozen ?? Math.max(this.author.seconds(), 4);
  }

  at(event, lane) {
    const box = lane.getBoundingClientRect();
    return Math.min(this.span(), Math.max(0, ((event.clientX - box.left) / box.width) * this.span()));
  }

  percent(seconds) {
    return `${(100 * Math.min(1, seconds / this.span())).toFixed(3)}%`;
  }

  scrub(event) {
    this.author.seek(this.at(event, this.ruler));
  }

  add(event, name) {
    if (event.target.classList.contains("tl-lane")) this.author.addAt(name, this.author.snap(this.at(event, event.target)));
  }

  /** A press on something that may become a drag along the time axis: `move(seconds since the press)` each time, `end(moved)`. */
  drag(event, lane, move, end) {
    if (event.button) return;
    event.preventDefault();
    event.stopPropagation();
    const target = event.currentTarget;
    target.focus?.({ preventScroll: true });
    const pressed = event.clientX;
    this.frozen = this.span();
    let moved = false;
    const onmove = (next) => {
      if (!moved && Math.abs(next.clientX - pressed) < SLACK) return;
      moved = true;
      move(((next.clientX - pressed) / lane.getBoundingClientRect().width) * this.frozen);
    };
    const onend = () => {
      window.removeEventListener("pointermove", onmove);
      window.removeEventListener("pointerup", onend);
      window.removeEventListener("pointercancel", onend);
      this.frozen = undefined;
      end(moved);
    };
    window.addEventListener("pointermove", onmove);
    window.addEventListener("pointerup", onend);
    window.addEventListener("pointercancel", onend);
  }

  // ---- what is drawn

  refresh() {
    const focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.item : null;
    this.drawRuler();
    this.drawPrompts();
    this.drawMarks();
    if (focused) this.element.querySelector(`[data-item="${focused}"]`)?.focus({ preventScroll: true });
  }

  drawRuler() {
    const span = this.span();
    const step = span > 24 ? 4 : span > 12 ? 2 : 1;
    const ticks = Array.from({ length: Math.floor(span / step) + 1 }, (_, index) => index * step);
    this.ruler.replaceChildren(...ticks.map((second) =>
      make("span", { class: "tl-tick", text: `${second}`, style: `left: ${this.percent(second)}` })));
  }

  drawPrompts() {
    const { author } = this;
    let start = 0;
    const segments = author.script.prompts.map((prompt, index) => {
      const edge = make("span", { class: "tl-edge", title: "Drag: how long it lasts", onpointerdown: (event) => this.stretch(event, index) });
      const segment = make("div", {
        class: "tl-segment", role: "button", tabindex: 0, "data-item": `prompts-${index}`, title: prompt.text,
        "aria-pressed": String(author.isSelected("prompts", index)),
        "aria-label": `Prompt ${index + 1}, ${prompt.seconds.toFixed(1)} seconds: ${prompt.text || "nothing said"}. Left and right change its length.`,
        style: `left: ${this.percent(start)}; width: ${this.percent(prompt.seconds)}`,
        onclick: () => author.select("prompts", index), ondblclick: () => author.select("prompts", index, true),
        onkeydown: (event) => this.keyOnPrompt(event, index),
      }, make("span", { class: "tl-words", text: prompt.text || "…" }), make("span", { class: "tl-length", text: `${prompt.seconds.toFixed(1)} s` }), edge);
      start += prompt.seconds;
      return segment;
    });
    this.prompts.replaceChildren(...segments);
    if (!segments.length) this.prompts.append(make("span", { class: "tl-empty", text: "no prompts yet: press “+ Prompt”" }));
  }

  stretch(event, index) {
    const { author } = this;
    const before = author.script.prompts[index].seconds;
    author.select("prompts", index);
    const move = (seconds) => {
      author.script.prompts[index].seconds = tenth(Math.min(LONGEST, Math.max(SHORTEST, before + seconds)));
      author.draft();
    };
    this.drag(event, this.prompts, move, (moved) => moved && author.commit(`prompt ${index + 1} lasts ${author.script.prompts[index].seconds} seconds`));
  }

  keyOnPrompt(event, index) {
    const { author } = this;
    const prompt = author.script.prompts[index];
    const step = { ArrowLeft: -0.1, ArrowRight: 0.1 }[event.key];
    if (step) {
      prompt.seconds = tenth(Math.min(LONGEST, Math.max(SHORTEST, prompt.seconds + step * (event.shiftKey ? 5 : 1))));
      author.commit(`prompt ${index + 1} lasts ${prompt.seconds} seconds`);
    } else if (event.key === "Enter" || event.key === " ") author.select("prompts", index, event.key === "Enter");
    else if (event.key === "Delete" || event.key === "Backspace") author.remove("prompts", index);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  drawMarks() {
    const { script } = this.author;
    const found = LANES.map(() => []);
    const lane = (name) => LANES.findIndex(([known]) => known === name);
    script.paths.forEach((path, index) => found[0].push(this.bar(path, index)));
    script.waypoints.forEach((one, index) =>
      found[0].push(this.mark("waypoints", index, "seconds", one, `Waypoint ${index + 1} at x ${one.x.toFixed(1)}, z ${one.z.toFixed(1)}`)));
    script.keys.forEach((one, index) =>
      found[lane(one.part)].push(this.mark("keys", index, "at", one, `${LANES[lane(one.part)][1]} key, frame ${one.frame} of ${one.clip}`)));
    this.lanes.forEach((element, index) => element.replaceChildren(...found[index]));
  }

  mark(kind, index, field, one, words) {
    const { author } = this;
    const own = this.lanes[kind === "waypoints" ? 0 : LANES.findIndex(([name]) => name === one.part)];
    const move = (seconds) => {
      one[field] = author.snap(Math.max(0, before + seconds));
      author.draft();
    };
    const before = one[field];
    const late = before > author.seconds() + 1e-6;
    return make("button", {
      type: "button", class: `tl-mark${late ? " tl-late" : ""}`, "data-item": `${kind}-${index}`, "data-part": one.part ?? "root",
      "aria-pressed": String(author.isSelected(kind, index)), style: `left: ${this.percent(before)}`,
      title: `${words}, ${before.toFixed(2)} s${late ? " (after the end)" : ""}`, "aria-label": `${words}, ${before.toFixed(2)} seconds`,
      onpointerdown: (event) => this.drag(event, own, move, (moved) => (moved ? author.commit(`moved to ${one[field].toFixed(2)} seconds`) : author.select(kind, index))),
      onkeydown: (event) => this.keyOnMark(event, kind, index, field, one),
      onclick: (event) => event.detail === 0 && author.select(kind, index), // a press of Enter
    });
  }

  keyOnMark(event, kind, index, field, one) {
    const { author } = this;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      one[field] = author.snap(Math.max(0, one[field] + (step * (event.shiftKey ? 10 : 1)) / author.rate()));
      author.commit(`${one[field].toFixed(2)} seconds`);
    } else if (event.key === "Delete" || event.key === "Backspace") author.remove(kind, index);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  bar(path, index) {
    const { author } = this;
    const [start, stop] = [path.start, path.stop];
    const move = (seconds) => {
      const shift = Math.max(-start, seconds);
      Object.assign(path, { start: author.snap(start + shift), stop: author.snap(stop + shift) });
      author.draft();
    };
    return make("button", {
      type: "button", class: "tl-bar", "data-item": `paths-${index}`, "aria-pressed": String(author.isSelected("paths", index)),
      style: `left: ${this.percent(start)}; width: ${this.percent(stop - start)}`, title: `Path, ${start.toFixed(1)} to ${stop.toFixed(1)} s`,
      "aria-label": `Path ${index + 1}, from ${start.toFixed(1)} to ${stop.toFixed(1)} seconds`,
      onpointerdown: (event) => this.drag(event, this.lanes[0], move, (moved) => (moved ? author.commit("path moved") : author.select("paths", index))),
      onkeydown: (event) => {
        if (event.key !== "Delete" && event.key !== "Backspace") return;
        event.preventDefault();
        event.stopPropagation();
        author.remove("paths", index);
      },
      onclick: (event) => event.detail === 0 && author.select("paths", index),
    });
  }

  showTime(seconds) {
    this.playhead.style.left = this.percent(seconds);
  }
}
