/**
 * Bodies that can be played, turned and compared: stage, clock and switches around a `model` with get, set, on, save_changes.
 *
 * The player is this alone; the authoring widget has it beside its timeline.
 */
import { unpackClips } from "./body_clips.js";
import { button, download, make } from "./dom.js";
import { MotionStage, bodyColour } from "./motion_stage.js";
import { Player } from "./player.js";

const KEYS = "Keys: Space plays, arrows step, Shift+arrows turn, + and − zoom, F follows, R resets, 1 to 9 pick one, 0 all.";
const TOGGLES = [
  ["follow", "Follow", "The eye goes along with the bodies (F)"],
  ["contacts", "Contacts", "Green under a foot that stands"],
  ["named", "Names", "Names above the heads"],
];
const LOOKS = [["Front", 0, 0.12], ["Side", Math.PI / 2, 0.12], ["Top", 0, 1.56]]; // name, azimuth, elevation

/** The clock of a motion: seconds and frames instead of shares. */
class MotionClock extends Player {
  setLength(seconds, fps) {
    Object.assign(this, { seconds, fps });
    this.scrub.step = 1 / Math.max(1, Math.round(seconds * fps));
    this.showTime();
  }

  showTime() {
    const now = this.time * this.seconds;
    this.scrub.value = this.time;
    this.clock.textContent = `${now.toFixed(2)} of ${this.seconds.toFixed(1)} s`;
    this.scrub.setAttribute("aria-label", "Time");
    this.scrub.setAttribute("aria-valuetext", `${this.clock.textContent}, frame ${Math.round(now * (this.fps ?? 1))}`);
  }
}

export class MotionView {
  constructor(model) {
    this.model = model;
    this.told = -1; // the frame that Python knows of
    this.clock = new MotionClock({ ontime: (time, alpha) => this.draw(time, alpha), seconds: 1, hold: 0.6, trail: 0.3 });
    this.stage = new MotionStage(`Bodies in motion. Drag to turn. ${KEYS}`, () => this.clock.redraw(), () => this.tellEye());
    this.stage.canvas.addEventListener("keydown", (event) => this.key(event));
    this.build();
    this.listen();
    this.take();
  }

  build() {
    const set = (values) => this.change(values);
    this.toggles = TOGGLES.map(([name, text, label]) =>
      button(text, label, () => set({ [name]: !this.model.get(name) }), { class: "mp-toggle", "data-name": name }),
    );
    this.apart = button("Side by side", "Side by side, or all in one place", () => set({ apart: !this.model.get("apart") }), { class: "mp-toggle" });
    this.colour = button("Left | right", "Colour left and right limbs, or each sample", () =>
      set({ colour: this.model.get("colour") === "sides" ? "samples" : "sides" }), { class: "mp-toggle" });
    const looks = LOOKS.map(([text, azimuth, elevation]) => button(text, `Look from: ${text.toLowerCase()}`, () => this.lookFrom(azimuth, elevation)));
    const reset = button("Reset", "The view as it was at first (R)", () => this.reset());
    this.bar = make("div", { class: "pk-toolbar mp-bar", role: "toolbar", "aria-label": "View" },
      ...this.toggles, this.apart, this.colour, make("span", { class: "mp-gap" }), ...looks, reset);
    this.chips = make("div", { class: "pk-chips", role: "radiogroup", "aria-label": "Motion to look at" });
    this.saves = make("div", { class: "pk-toolbar mp-saves", role: "toolbar", "aria-label": "Save" });
    this.legend = make("p", { class: "mp-legend" });
    this.hint = make("p", { class: "pk-hint", text: "Drag to turn, Shift-drag to move, click and use the wheel to zoom." });
    this.spoken = make("p", { class: "pk-hidden", "aria-live": "polite" });
    this.element = make("div", { class: "mp" }, this.bar, this.stage.element, this.clock.element, this.chips,
      make("div", { class: "mp-foot" }, this.legend, this.hint), this.saves, this.spoken);
    this.clock.scrub.addEventListener("change", () => this.tellFrame());
    this.clock.toggleButton.addEventListener("click", () => this.tellFrame());
  }

  listen() {
    const heard = {};
    const on = (name, hear) => {
      heard[name] = hear;
      this.model.on(name, hear);
    };
    on("change:scene", () => this.take());
    on("change:frame", () => this.hearFrame());
    for (const name of ["azimuth", "elevation", "distance"]) on(`change:${name}`, () => this.hearEye());
    for (const name of ["follow", "contacts", "named", "apart", "colour", "focus", "targets"]) on(`change:${name}`, () => this.refresh());
    on("change:formats", () => this.makeSaves());
    on("msg:custom", (message, buffers) => {
      if (message.kind !== "file") return;
      download(buffers[0], message.name, message.type);
      this.spoken.textContent = `saved ${message.name}`;
    });
    this.forget = () => Object.entries(heard).forEach(([name, hear]) => this.model.off(name, hear));
  }

  // ---- from the model

  take() {
    const { model, stage, clock } = this;
    const clips = unpackClips(model.get("scene"));
    this.clips = clips;
    clock.setLength(clips.seconds, clips.fps);
    this.hearEye(false);
    stage.follow = model.get("follow");
    stage.apart = model.get("apart");
    stage.show(clips);
    if (model.get("distance")) this.hearEye();
    this.makeChips();
    this.makeSaves();
    this.refresh();
    const frame = model.get("frame");
    this.told = frame;
    const stands = clips.list.every((clip) => clip.frames < 2);
    clock.element.hidden = stands;
    if (stands) clock.pause();
    if (frame > 0 || stands) clock.seek(frame / clips.fps / clips.seconds);
    else clock.restart();
  }

  makeChips() {
    const { list } = this.clips;
    const chip = (sample) => {
      const own = sample < 0 ? "all" : `${sample + 1} ${list[sample].label}`;
      const words = own.trim().replace(/^(\d+) \1$/, "$1"); // a label that is the number itself is not said twice
      return button(words.length > 44 ? `${words.slice(0, 43)}…` : words, sample < 0 ? "All motions" : `Only motion ${words}`,
        () => this.change({ focus: sample }), { role: "radio", "data-sample": sample, style: sample < 0 ? "" : `--chip: ${bodyColour(sample)}` });
    };
    this.chips.replaceChildren(...(list.length > 1 ? [-1, ...list.keys()].map(chip) : []));
    const many = list.length > 1;
    this.apart.hidden = this.colour.hidden = !many;
    this.toggles.find((one) => one.dataset.name === "contacts").hidden = !list.some((clip) => clip.contacts);
  }

  makeSaves() {
    const formats = this.model.get("formats") ?? [];
    const save = (format) => button(format.toUpperCase(), `Save as ${format}`, () => {
      this.spoken.textContent = `making the ${format.toUpperCase()} …`;
      this.model.send({ kind: "save", format });
    });
    this.saves.hidden = !formats.length || this.clips.list.every((clip) => clip.frames < 2);
    this.saves.replaceChildren(make("span", { class: "mp-quiet", text: "Save" }), ...formats.map(save));
  }

  hearFrame() {
    const frame = this.model.get("frame");
    if (frame === this.told) return;
    this.told = frame;
    this.clock.pause();
    this.clock.seek(frame / this.clips.fps / this.clips.seconds);
  }

  hearEye(drawn = true) {
    const { eye } = this.stage;
    const [azimuth, elevation, distance] = ["azimuth", "elevation", "distance"].map((name) => this.model.get(name));
    Object.assign(eye, { azimuth, elevation }, distance > 0 ? { distance } : {});
    if (distance > 0) this.stage.fitted = false;
    if (drawn) this.clock.redraw();
  }

  refresh() {
    const { model } = this;
    const press = (one, on) => one.setAttribute("aria-pressed", String(Boolean(on)));
    this.toggles.forEach((one) => press(one, model.get(one.dataset.name)));
    press(this.apart, model.get("apart"));
    const sides = model.get("colour") === "sides";
    press(this.colour, sides);
    for (const chip of this.chips.children) chip.setAttribute("aria-checked", String(Number(chip.dataset.sample) === model.get("focus")));
    const key = (colour, words) => make("span", { class: "mp-key", style: `--key: ${colour}`, text: words });
    const standing = model.get("contacts") && this.clips.list.some((clip) => clip.contacts);
    this.legend.replaceChildren(...[sides && key("#0072b2", "left"), sides && key("#d55e00", "right"), standing && key("#009e73", "foot stands"),
      (model.get("targets") ?? []).length && key("#f0b429", "asked for")].filter(Boolean));
    this.clock.redraw();
  }

  draw(time, alpha) {
    const { model, stage, clock } = this;
    const began = performance.now();
    stage.draw({
      seconds: time * this.clips.seconds, trail: clock.trail * this.clips.seconds, alpha, focus: model.get("focus"),
      colour: model.get("colour"), apart: model.get("apart"), follow: model.get("follow"), contacts: model.get("contacts"),
      named: model.get("named"), targets: model.get("targets"),
    });
    this.element.dataset.frame = this.frame();
    this.element.dataset.cost = (performance.now() - began).toFixed(2); // milliseconds
    this.element.dataset.drawn = Number(this.element.dataset.drawn ?? 0) + 1;
    this.onmoment?.(time * this.clips.seconds);
  }

  // ---- to the model

  frame() {
    return Math.round(this.clock.time * this.clips.seconds * this.clips.fps);
  }

  change(values) {
    const refit = "apart" in values || "follow" in values;
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    this.model.save_changes();
    if (refit && this.stage.fitted) this.stage.fit(this.model.get("follow"), this.model.get("apart"));
    this.refresh();
  }

  tellFrame() {
    if (this.clock.playing || this.frame() === this.told) return;
    this.told = this.frame();
    this.model.set("frame", this.told);
    this.model.save_changes();
  }

  tellEye() {
    const { azimuth, elevation, distance } = this.stage.eye;
    const full = (2 * Math.PI);
    this.model.set("azimuth", azimuth - full * Math.round(azimuth / full));
    this.model.set("elevation", elevation);
    this.model.set("distance", this.stage.fitted ? 0 : distance);
    this.model.save_changes();
  }

  lookFrom(azimuth, elevation) {
    const { eye } = this.stage;
    Object.assign(eye, { azimuth: azimuth + (this.model.get("scene")?.facing ?? 0), elevation });
    this.stage.fit(this.model.get("follow"), this.model.get("apart"));
    this.tellEye();
    this.clock.redraw();
  }

  reset() {
    const scene = this.model.get("scene") ?? {};
    Object.assign(this.stage.eye, { azimuth: scene.azimuth ?? 0.6, elevation: scene.elevation ?? 0.22 });
    this.stage.fit(this.model.get("follow"), this.model.get("apart"));
    this.tellEye();
    this.clock.redraw();
  }

  step(frames) {
    this.clock.pause();
    this.clock.seek((this.frame() + frames) / this.clips.fps / this.clips.seconds);
    this.tellFrame();
    this.spoken.textContent = `frame ${this.frame()}`;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { eye } = this.stage;
    const turns = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    const eyeMoves = () => {
      this.stage.fitted = false;
      this.clock.redraw();
      this.tellEye();
    };
    const name = event.key.toLowerCase();
    if (turns && event.shiftKey) {
      eye.turn(...turns);
      eyeMoves();
    } else if (turns) this.step((turns[0] > 0 || turns[1] > 0 ? 1 : -1) * (turns[1] ? 10 : 1));
    else if (event.key === " ") {
      this.clock.toggle();
      this.tellFrame();
    } else if (event.key === "Home") this.step(-1e6);
    else if (event.key === "End") this.step(1e6);
    else if ("+=-_−".includes(event.key)) {
      eye.zoom("+=".includes(event.key) ? 0.88 : 1.14);
      eyeMoves();
    } else if (name === "f") this.change({ follow: !this.model.get("follow") });
    else if (name === "r") this.reset();
    else if (/^[0-9]$/.test(name) && Number(name) <= this.clips.list.length) this.change({ focus: Number(name) - 1 });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  dispose() {
    this.forget();
    this.clock.dispose();
    this.stage.dispose();
  }
}
