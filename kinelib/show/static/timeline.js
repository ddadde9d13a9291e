/**
 * The authoring widget: timeline, floor, clips and player around one script. Served by `kinelib.show.timeline`.
 *
 * The script lives in Python, with its history; the page works on a copy, sends a whole new script when a hand lets go, and
 * takes over whatever Python says counts. `model` has get, set, on, off, send, save_changes.
 */
import { unpackClips } from "./body_clips.js";
import { make } from "./dom.js";
import { FloorPlan, round2 } from "./floor_plan.js";
import { MotionView } from "./motion_view.js";
import { Lanes } from "./timeline_lanes.js";
import { authorBar, clipPicker, inspector } from "./timeline_parts.js";

const STROLL = 1.1; // metres a second
const EMPTY = { prompts: [], waypoints: [], paths: [], keys: [] };

class MotionAuthorView {
  constructor(model, el) {
    this.model = model;
    this.selected = null;
    this.view = new MotionView(model);
    this.view.onmoment = () => {
      if (this.view.clock.playing) this.pointed = undefined;
      this.lanes?.showTime(this.playhead());
      this.plan?.draw();
    };
    this.clips = unpackClips(model.get("clips"));
    this.forget();
    this.bar = authorBar(this);
    this.fields = inspector(this);
    this.lanes = new Lanes(this);
    this.plan = new FloorPlan(this);
    this.picker = clipPicker(this);
    this.build(el);
    this.listen();
    this.refresh();
  }

  build(el) {
    const tools = [["waypoint", "Waypoints", "Tap the floor to add a waypoint"], ["path", "Draw a path", "Drag over the floor to draw a path"]];
    this.tools = tools.map(([name, text, label]) => make("button", { type: "button", role: "radio", text, title: label, "data-tool": name, onclick: () => {
      this.plan.tool = name;
      this.refresh();
    } }));
    const toolTabs = make("div", { class: "pk-tabs", role: "radiogroup", "aria-label": "Floor tool" }, ...this.tools);
    this.problem = make("p", { class: "pk-problem", role: "alert" });
    this.spoken = make("p", { class: "pk-hidden", "aria-live": "polite" });
    const floor = make("fieldset", { class: "pk-group tl-floor" }, make("legend", { text: "Floor, forward is up" }), toolTabs, this.plan.canvas);
    this.root = make("section", { class: "pk tl", "aria-label": this.model.get("title") || "Motion author", "data-lm-suppress-shortcuts": "true" },
      this.bar.element, this.problem, this.lanes.element, this.fields.element,
      make("div", { class: "tl-columns" }, make("div", { class: "tl-side" }, floor, this.picker.element), this.view.element), this.spoken);
    this.root.addEventListener("keydown", (event) => this.key(event));
    el.replaceChildren(this.root);
  }

  listen() {
    const heard = {};
    const on = (name, hear) => {
      heard[name] = hear;
      this.model.on(name, hear);
    };
    on("change:script", () => this.takeScript());
    on("change:clips", () => {
      this.clips = unpackClips(this.model.get("clips"));
      this.refresh();
    });
    for (const name of ["can_undo", "can_redo", "samples", "seed", "busy", "progress", "status", "error", "scene"]) on(`change:${name}`, () => this.refresh());
    this.leave = () => Object.entries(heard).forEach(([name, hear]) => this.model.off(name, hear));
  }

  takeScript() {
    if (this.lanes.frozen !== undefined || this.plan.hand) return; // a hand is at work; it will send its own
    this.forget();
    this.refresh();
  }

  /** Back to what counts. */
  forget() {
    this.script = structuredClone({ ...EMPTY, ...this.model.get("script") });
    const { selected, script } = this;
    if (selected && !script[selected.kind][selected.index]) this.selected = null;
  }

  // ---- what the parts ask

  seconds() {
    return Math.round(this.script.prompts.reduce((sum, prompt) => sum + prompt.seconds, 0) * 1000) / 1000;
  }

  rate() {
    return this.model.get("rate");
  }

  snap(seconds) {
    return Math.round(Math.round(seconds * this.rate()) / this.rate() * 1e4) / 1e4;
  }

  playhead() {
    const { clock, clips } = this.view;
    return this.pointed ?? (this.generated() ? clock.time * clips.seconds : 0);
  }

  isSelected(kind, index) {
    return this.selected?.kind === kind && this.selected.index === index;
  }

  /** Whether the player shows motion, and not only a body that waits. */
  generated() {
    return this.view.clips.list.some((clip) => clip.frames > 1);
  }

  /** Where a key stands: as told, or where its clip has it. */
  keyPlace(key) {
    const clip = this.clips.list.find((one) => one.label === key.clip);
    const [x, z] = clip ? [clip.root[3 * key.frame], clip.root[3 * key.frame + 2]] : [0, 0];
    return [key.x ?? x, key.z ?? z];
  }

  /** The ways of what was generated, [x, z] places. */
  ways() {
    if (this.waysOf !== this.view.clips) {
      this.waysOf = this.view.clips;
      this.knownWays = this.view.clips.list.filter((clip) => clip.frames > 1).map((clip) => Array.from({ length: clip.frames }, (_, frame) => clip.way(frame)));
    }
    return this.knownWays;
  }

  now() {
    const seconds = this.view.clock.time * this.view.clips.seconds;
    return this.view.clips.list.filter((clip) => clip.frames > 1).map((clip) => clip.way(clip.frame(seconds)));
  }

  // ---- what the parts do

  select(kind, index, focus = false) {
    this.selected = { kind, index };
    this.refresh();
    if (focus) this.fields.focus();
  }

  /** Shows the copy as it is being changed. */
  draft() {
    this.refresh();
  }

  /** Sends the copy; what is selected stays so, wherever it goes in the order of time. */
  commit(words) {
    const { script, selected } = this;
    const one = selected && script[selected.kind][selected.index];
    script.waypoints.sort((a, b) => a.seconds - b.seconds);
    script.paths.sort((a, b) => a.start - b.start);
    script.keys.sort((a, b) => a.at - b.at);
    if (one) this.selected = { kind: selected.kind, index: script[selected.kind].indexOf(one) };
    this.model.send({ kind: "edit", script });
    this.spoken.textContent = words;
    this.refresh();
  }

  remove(kind, index) {
    this.script[kind].splice(index, 1);
    this.selected = null;
    this.commit("removed");
  }

  tell(kind) {
    this.model.send({ kind });
  }

  set(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
    this.refresh();
  }

  seek(seconds) {
    const { clock, clips } = this.view;
    this.pointed = seconds;
    clock.pause();
    clock.seek(seconds / clips.seconds);
    this.lanes.showTime(seconds);
  }

  insert(kind, one, words) {
    this.script[kind].push(one);
    this.selected = { kind, index: this.script[kind].length - 1 };
    this.commit(words);
  }

  addPrompt() {
    this.insert("prompts", { text: "A person walks forward.", seconds: 4 }, "prompt added");
    this.fields.focus();
  }

  addWaypoint(x, z) {
    const { waypoints } = this.script;
    const last = waypoints.at(-1) ?? { x: 0, z: 0, seconds: 0 };
    const after = last.seconds + Math.max(0.5, Math.hypot(x - last.x, z - last.z) / STROLL);
    const end = this.seconds() || Infinity;
    // Where the end is near, half the time that is left.
    const seconds = this.snap(after < end ? after : (last.seconds + end) / 2);
    this.insert("waypoints", { x, z, seconds, heading: null }, `waypoint at x ${x}, z ${z}, ${seconds.toFixed(1)} seconds`);
  }

  addPath(points) {
    const length = points.slice(1).reduce((sum, [x, z], index) => sum + Math.hypot(x - points[index][0], z - points[index][1]), 0);
    const end = this.seconds() || Infinity;
    const last = Math.max(0, ...this.script.paths.map((path) => path.stop));
    const start = this.snap(last < end - 0.5 ? last : 0);
    const stop = this.snap(Math.min(end, start + Math.max(0.5, length / STROLL)));
    this.insert("paths", { points, start, stop }, `path of ${length.toFixed(1)} metres`);
  }

  addAt(lane, seconds) {
    if (lane === "root") {
      const { waypoints } = this.script;
      const before = waypoints.filter((one) => one.seconds <= seconds).at(-1) ?? { x: 0, z: 0, seconds: 0 };
      const after = waypoints.find((one) => one.seconds > seconds);
      const share = after ? (seconds - before.seconds) / (after.seconds - before.seconds) : 0;
      const at = (axis) => round2(before[axis] + (after ? (after[axis] - before[axis]) * share : axis === "z" ? (seconds - before.seconds) * STROLL : 0));
      return this.insert("waypoints", { x: at("x"), z: at("z"), seconds, heading: null }, "waypoint added");
    }
    const chosen = this.picker.chosen();
    if (!chosen) return this.complain("there are no clips to take a pose from; give MotionAuthor some: clips={\"a walk\": motion}");
    this.script.keys = this.script.keys.filter((key) => key.part !== lane || Math.abs(key.at - seconds) > 1e-6);
    return this.insert("keys", { part: lane, ...chosen, at: seconds, x: null, z: null, turn: 0 }, `${lane.replace("_", " ")} at ${seconds.toFixed(2)} seconds`);
  }

  complain(words) {
    this.problem.textContent = words;
  }

  key(event) {
    if (!(event.ctrlKey || event.metaKey)) return;
    const name = event.key.toLowerCase();
    const typing = event.target.matches?.("input[type=text], input[type=number]");
    if (typing || !["z", "y"].includes(name)) return;
    this.tell(name === "y" || event.shiftKey ? "redo" : "undo");
    event.preventDefault();
    event.stopPropagation();
  }

  refresh() {
    const { model } = this;
    this.bar.refresh(model);
    this.fields.refresh();
    this.lanes.refresh();
    this.lanes.showTime(this.playhead());
    this.picker.refresh();
    this.view.clock.redraw();
    for (const tool of this.tools) tool.setAttribute("aria-checked", String(tool.dataset.tool === this.plan.tool));
    this.problem.textContent = model.get("error");
    this.root.dataset.busy = model.get("busy");
  }

  dispose() {
    this.leave();
    this.view.dispose();
    this.plan.dispose();
    this.picker.dispose();
  }
}

/** What the widget calls. */
export function render({ model, el }) {
  const author = new MotionAuthorView(model, el);
  return () => author.dispose();
}

export default { render };
