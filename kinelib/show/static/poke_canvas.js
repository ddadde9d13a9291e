/**
 * The poke canvas: drag a point of a picture and watch sampled futures. Served by `kinelib.show.poke_canvas` in Jupyter and,
 * unchanged, by the offline page of `kinelib.show.standalone`; both give it a `model` with get, set, on, send.
 *
 * The hand's changes go out as traits together with a rising `request` number; answers carry the number they belong to,
 * and an answer older than one already shown is dropped.
 */
import { downloads, pictureChooser, pokeEditor, sampleChips, samplingControls, toolbar, viewTabs } from "./controls.js";
import { download, make } from "./dom.js";
import { Futures } from "./futures.js";
import { Gestures } from "./gestures.js";
import { Player } from "./player.js";
import { PokeList, sound } from "./pokes.js";
import { Stage } from "./stage.js";

const HINTS = {
  futures: "Drag a point: that is a poke. Tap: hold it still. Drag an end to change it. Keys: arrows, Enter.",
  field: "Where every point goes, in one sample. Choose the sample below; pokes work here too.",
  where: "Tap a point to ask where it will be; the time slider moves through the future. Drag to poke.",
};
const KINDS = ["answer", "field", "where"];

class PokeCanvas {
  constructor(model, el) {
    this.model = model;
    this.pokes = new PokeList(model.get("pokes"), model.get("most_pokes"));
    this.draftPoke = null;
    this.draftIndex = -1;
    this.usualTime = 1;
    this.focus = model.get("focus");
    this.released = null; // {request, at}: when the hand let go, for the time to first futures on screen
    this.player = new Player({ ontime: (time, alpha) => this.draw(time, alpha) });
    this.stages = model.get("names").map((name, index, all) => {
      const label = `Picture to poke${all.length > 1 ? `, ${name}` : ""}. ${HINTS.futures}`;
      const stage = new Stage(label, () => this.player.redraw());
      stage.caption.textContent = all.length > 1 ? name : "";
      stage.hands = new Gestures(stage, this.hands());
      return stage;
    });
    this.build(el);
    this.listen();
    this.refreshPicture();
    this.stages.forEach((_, index) => KINDS.forEach((kind) => this.take(kind, index)));
    this.refresh();
  }

  // ---- page

  build(el) {
    const act = {
      set: (values) => this.change(values),
      travel: (how) => this.travel(how),
      look: (sample) => this.look(sample),
      retime: (time) => this.retime(time),
      remove: () => this.pokes.remove(this.pokes.selected) && this.commit("poke removed"),
      another: () => this.change({ draw: this.model.get("draw") + 1 }),
      upload: (name, bytes) => {
        this.say(`reading ${name} …`);
        this.model.send({ kind: "upload", name }, undefined, [bytes]);
      },
      complain: (words) => this.complain(words),
      save: (format) => {
        this.say(`making the ${format.toUpperCase()} …`);
        this.model.send({ kind: "save", format, focus: this.focus });
      },
    };
    this.parts = {
      toolbar: toolbar(act), tabs: viewTabs(act), chips: sampleChips(act), editor: pokeEditor(act),
      sampling: samplingControls(act), chooser: pictureChooser(act), downloads: downloads(act),
    };
    const { toolbar: tools, tabs, chips, editor, sampling, chooser, downloads: saves } = this.parts;
    this.hint = make("p", { class: "pk-hint" });
    this.problem = make("p", { class: "pk-problem", role: "alert" });
    this.status = make("p", { class: "pk-status" });
    this.spoken = make("p", { class: "pk-hidden", "aria-live": "polite" });
    this.side = make("div", { class: "pk-side" }, chooser.element, editor.element, sampling.element, saves.element);
    const stages = make("div", { class: "pk-stages" }, ...this.stages.map((stage) => stage.element));
    this.root = make(
      "section",
      // Jupyter's own shortcuts (Delete, Enter, arrows) leave the keys to us inside.
      { class: "pk", "aria-label": "Poke canvas", "data-lm-suppress-shortcuts": "true", "data-panels": this.stages.length },
      make("div", { class: "pk-main" }, make("div", { class: "pk-bar" }, tools.element, tabs.element), this.hint, stages,
        this.player.element, chips.element, make("div", { class: "pk-foot" }, this.status), this.problem),
      this.side,
      this.spoken,
    );
    el.replaceChildren(this.root);
  }

  hands() {
    return {
      pokes: this.pokes,
      view: () => this.model.get("view"),
      time: () => this.usualTime,
      draft: (poke, index = -1) => {
        this.draftPoke = poke;
        this.draftIndex = index;
        this.player.redraw();
      },
      changed: (words) => this.commit(words),
      ask: (question) => this.change({ question: question.map((value) => Math.min(1, Math.max(-1, value))) }),
      drawn: () => this.refresh(),
      say: (words) => this.say(words),
      travel: (how) => this.travel(how),
    };
  }

  // ---- from the hand to the model

  /** Sends changed values together with a new request number; the clock of the latency starts here. */
  change(values) {
    const request = this.model.get("request") + 1;
    this.released = { request, at: performance.now() };
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    this.model.set("request", request);
    this.model.save_changes();
    this.refresh();
  }

  commit(words) {
    this.player.standStill();
    this.change({ pokes: this.pokes.list });
    this.say(words);
  }

  travel(how) {
    if (this.pokes[how]()) this.commit(how);
  }

  retime(time) {
    const { selected, list } = this.pokes;
    this.usualTime = list[selected] ? this.usualTime : time;
    if (!list[selected]) return this.refresh();
    this.pokes.change(selected, sound([...list[selected].slice(0, 4), time]));
    return this.commit(`poke ${selected + 1} arrives at ${time}`);
  }

  look(sample) {
    this.focus = sample;
    this.model.set("focus", sample);
    this.model.save_changes();
    this.refresh();
  }

  // ---- from the model to the eye

  listen() {
    const { model } = this;
    const heard = {};
    const on = (name, hear) => {
      heard[name] = hear;
      model.on(name, hear);
    };
    on("change:pokes", () => this.pokes.replace(model.get("pokes")) && this.refresh());
    on("change:picture", () => this.refreshPicture());
    on("change:focus", () => {
      this.focus = model.get("focus");
      this.refresh();
    });
    for (const name of ["view", "question", "samples", "steps", "guidance", "seed", "text", "sources", "source", "moment",
      "moments", "has_more", "busy", "error", "takes_text", "controls"]) on(`change:${name}`, () => this.refresh());
    this.stages.forEach((_, index) => {
      for (const kind of KINDS) on(`change:${kind}_${index}`, () => this.take(kind, index));
    });
    on("msg:custom", (message, buffers) => this.hear(message, buffers));
    this.forget = () => Object.entries(heard).forEach(([name, hear]) => model.off(name, hear));
  }

  hear(message, buffers) {
    if (message.kind === "file") {
      download(buffers[0], message.name, message.type);
      this.say(`saved ${message.name}`);
    } else if (message.kind === "problem") this.complain(message.words);
  }

  /** Takes an answer (futures), a dense field or the places of one point, unless something newer is shown already. */
  take(kind, index) {
    const given = this.model.get(`${kind}_${index}`);
    const stage = this.stages[index];
    const slot = kind === "answer" ? "futures" : kind;
    if (!given?.data) stage[slot] = null;
    else if ((stage[slot]?.facts.request ?? -1) <= given.request) stage[slot] = new Futures(given);
    else return;
    stage.stale = true;
    if (kind === "answer" && given?.data) {
      this.arrived = { request: given.request, index };
      this.player.restart();
    } else if (kind === "where" && given?.data && !this.player.playing) this.player.restart();
    else this.player.redraw();
    this.refresh();
  }

  async refreshPicture() {
    const bytes = this.model.get("picture");
    const size = this.model.get("picture_size");
    if (!bytes?.byteLength) return;
    const picture = await createImageBitmap(new Blob([bytes]));
    this.stages.forEach((stage) => stage.setPicture(picture, size));
    this.player.redraw();
  }

  refresh() {
    const { model, parts, pokes } = this;
    const view = model.get("view");
    const answer = this.stages[0].futures;
    parts.toolbar.refresh(pokes);
    parts.tabs.refresh(view, model.get("views"));
    parts.chips.refresh(answer?.samples ?? model.get("samples"), view === "field" ? Math.max(0, this.focus) : this.focus, view === "field");
    parts.chips.element.hidden = view === "where";
    parts.editor.refresh(pokes, this.usualTime);
    parts.editor.element.hidden = model.get("fixed_time") === true;
    parts.sampling.refresh(model);
    parts.chooser.refresh(model);
    parts.downloads.refresh(model.get("formats"), Boolean(answer));
    this.side.hidden = [...this.side.children].every((part) => part.hidden);
    this.root.classList.toggle("pk-plain", this.side.hidden);
    this.hint.textContent = HINTS[view];
    this.problem.textContent = model.get("error");
    if (model.get("error")) this.player.carryOn(); // nothing new will come
    this.root.classList.toggle("pk-busy", model.get("busy"));
    this.showStatus();
    this.player.redraw();
  }

  showStatus() {
    const shown = this.stages.map((stage) => stage.futures?.facts).filter(Boolean);
    if (!shown.length) {
      this.status.textContent = this.model.get("busy") ? "sampling …" : "no futures yet";
      return;
    }
    const times = shown.map((facts) => `${Math.round(facts.milliseconds)} ms`).join(" and ");
    const screen = this.latency ? `, ${Math.round(this.latency)} ms from the hand to the screen` : "";
    const measured = shown[0].milliseconds > 0 ? ` sampled in ${times}${screen}` : "";
    const which = shown[0].note ? ` ${shown[0].note}` : "";
    const where = this.stages[0].where && this.model.get("view") === "where" ? ` · ${this.stages[0].where.samples} samples of one point` : "";
    this.status.textContent = `${this.stages[0].futures.samples} futures${measured}${which}${where}${this.model.get("busy") ? " · sampling …" : ""}`;
  }

  draw(time, alpha) {
    const view = this.model.get("view");
    const pokes = this.draftIndex < 0 ? this.pokes.list : this.pokes.list.map((poke, i) => (i === this.draftIndex ? this.draftPoke : poke));
    for (const stage of this.stages) {
      stage.draw({
        view, time, alpha, pokes, focus: this.focus, trail: this.player.trail, selected: this.pokes.selected,
        draft: this.draftIndex < 0 ? this.draftPoke : null, question: this.model.get("question"), cross: stage.hands.cross,
      });
    }
    this.measure();
  }

  /** After the first drawing of an answer: how long that took since the hand let go. */
  measure() {
    const { arrived, released } = this;
    if (!arrived) return;
    this.arrived = null;
    this.root.dataset.shown = arrived.request;
    if (!released || arrived.request < released.request || arrived.index) return;
    this.latency = performance.now() - released.at;
    this.root.dataset.latency = this.latency.toFixed(1);
    this.released = null;
    this.showStatus();
  }

  say(words) {
    this.spoken.textContent = words;
    this.player.redraw();
  }

  complain(words) {
    this.problem.textContent = words;
  }

  dispose() {
    this.forget();
    this.player.dispose();
    this.stages.forEach((stage) => stage.dispose());
  }
}

/** What the widget and the offline page call. */
export function render({ model, el }) {
  const canvas = new PokeCanvas(model, el);
  return () => canvas.dispose();
}

export default { render };
