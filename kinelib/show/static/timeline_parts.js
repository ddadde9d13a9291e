/**
 * What stands around the timeline: the toolbar, the fields of what is selected, and the clips from which poses are taken.
 *
 * Parts write what the hand chose through `author` and show what it says in `refresh`; they keep no state of their own.
 */
import { Clips } from "./body_clips.js";
import { button, make, slider } from "./dom.js";
import { MotionStage } from "./motion_stage.js";
import { LANES } from "./timeline_lanes.js";

const degrees = (radians) => Math.round((radians * 180) / Math.PI);
const radians = (value) => Math.round(((value * Math.PI) / 180) * 1e4) / 1e4;

/** Undo, redo, add a prompt, clear; samples, seed and Generate. */
export function authorBar(author) {
  const undo = button("↶ Undo", "Undo (Ctrl+Z)", () => author.tell("undo"));
  const redo = button("↷ Redo", "Redo (Ctrl+Y)", () => author.tell("redo"));
  const clear = button("✕ Clear", "Remove everything", () => author.tell("clear"));
  const prompt = button("+ Prompt", "Add a prompt at the end", () => author.addPrompt());
  const number = (name, label, low, high) => {
    const input = make("input", { type: "number", min: low, max: high, step: 1, "aria-label": label, class: "tl-number" });
    input.addEventListener("change", () => author.set(name, Math.min(high, Math.max(low, Math.round(Number(input.value)) || low))));
    return input;
  };
  const samples = number("samples", "Samples", 1, 16);
  const seed = number("seed", "Seed", 0, 1e9);
  const generate = button("Generate", "Make motion of all this", () => author.tell("generate"), { class: "tl-generate" });
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const status = make("span", { class: "tl-status", role: "status" });
  const element = make("div", { class: "tl-toolbar", role: "toolbar", "aria-label": "Script" }, undo, redo, clear, prompt,
    make("span", { class: "mp-gap" }), make("label", {}, make("span", { text: "samples " }), samples), make("label", {}, make("span", { text: "seed " }), seed),
    generate, bar, status);
  const refresh = (model) => {
    const { prompts, waypoints, paths, keys } = author.script;
    undo.disabled = !model.get("can_undo");
    redo.disabled = !model.get("can_redo");
    clear.disabled = ![prompts, waypoints, paths, keys].some((list) => list.length);
    if (document.activeElement !== samples) samples.value = model.get("samples");
    if (document.activeElement !== seed) seed.value = model.get("seed");
    generate.disabled = model.get("busy") || !prompts.length;
    bar.hidden = !model.get("busy");
    if (model.get("progress") > 0) bar.value = model.get("progress");
    else bar.removeAttribute("value");
    status.textContent = model.get("status");
  };
  return { element, refresh };
}

/** The fields of what is selected. */
export function inspector(author) {
  const element = make("div", { class: "tl-inspector", role: "group", "aria-label": "Selected" });
  let shown = "";
  const field = (label, value, change, extra = {}) => {
    const input = make("input", { type: "number", step: 0.1, "aria-label": label, value, class: "tl-number", ...extra, onchange: () => change(Number(input.value)) });
    return make("label", {}, make("span", { text: `${label} ` }), input);
  };
  // The script is replaced whenever Python answers: what is written to is looked up then, not now.
  const set = (name, words) => (value) => {
    const { selected, script } = author;
    const one = selected && script[selected.kind][selected.index];
    if (!one) return;
    one[name] = value;
    author.commit(words);
  };
  const made = {
    prompts(one, index) {
      const text = make("input", { type: "text", maxlength: 300, "aria-label": `Prompt ${index + 1}`, value: one.text, class: "tl-text", placeholder: "A person walks forward.",
        onchange: () => set("text", "prompt changed")(text.value) });
      return [make("b", { text: `Prompt ${index + 1}` }), text, field("seconds", one.seconds, set("seconds", "length changed"), { min: 2, max: 10 })];
    },
    waypoints(one, index) {
      const heading = one.heading === null ? [button("+ heading", "Ask for a heading too", () => set("heading", "heading added")(0))]
        : [field("heading °", degrees(one.heading), (value) => set("heading", "turned")(radians(value)), { step: 5 }),
          button("free", "Leave the heading open", () => set("heading", "heading open")(null))];
      return [make("b", { text: `Waypoint ${index + 1}` }), field("at s", one.seconds, set("seconds", "moved in time"), { min: 0 }),
        field("x m", one.x, set("x", "moved")), field("z m", one.z, set("z", "moved")), ...heading];
    },
    paths(one, index) {
      return [make("b", { text: `Path ${index + 1}` }), field("from s", one.start, set("start", "moved in time"), { min: 0 }),
        field("to s", one.stop, set("stop", "moved in time"), { min: 0 }), make("span", { class: "tl-quiet", text: `${one.points.length} points` })];
    },
    keys(one) {
      const [x, z] = author.keyPlace(one);
      const part = make("select", { "aria-label": "Part", onchange: () => set("part", "part changed")(part.value) },
        ...LANES.slice(1).map(([name, label]) => make("option", { value: name, text: label, selected: name === one.part })));
      return [part, make("span", { class: "tl-quiet", text: `frame ${one.frame} of ${one.clip}` }), field("at s", one.at, set("at", "moved in time"), { min: 0, step: 0.05 }),
        field("x m", Math.round(x * 100) / 100, set("x", "moved")), field("z m", Math.round(z * 100) / 100, set("z", "moved")),
        field("turn °", degrees(one.turn), (value) => set("turn", "turned")(radians(value)), { step: 5 })];
    },
  };
  const refresh = () => {
    const { selected, script } = author;
    const one = selected && script[selected.kind]?.[selected.index];
    const now = JSON.stringify([selected, one]);
    if (now === shown) return;
    shown = now;
    if (!one) {
      element.replaceChildren(make("span", { class: "tl-quiet", text: "Select a prompt, a mark or a waypoint to change it." }));
      return;
    }
    const inside = element.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    const remove = button("Remove", "Remove it (Delete)", () => author.remove(selected.kind, selected.index));
    element.replaceChildren(...made[selected.kind](one, selected.index), remove);
    if (inside) element.querySelector(`[aria-label="${CSS.escape(inside)}"]`)?.focus();
  };
  const focus = () => element.querySelector("input")?.select();
  return { element, refresh, focus };
}

/** A clip, one of its frames, and a button for every part of the body that can be taken from it. */
export function clipPicker(author) {
  const state = { name: "", clips: null, frame: 0 };
  const draw = () => {
    const clip = state.clips?.list[0];
    if (clip) stage.draw({ seconds: state.frame / clip.fps, trail: 0, colour: "sides", apart: false, follow: true, contacts: false, named: false, focus: -1, alpha: 1 });
  };
  const stage = new MotionStage("The pose that will be taken; drag to turn", () => draw());
  const select = make("select", { "aria-label": "Clip", onchange: () => choose(select.value) });
  const frame = slider("frame", { min: 0, max: 1, step: 1, value: 0, oninput: (value) => {
    state.frame = value;
    draw();
  } });
  const parts = LANES.slice(1).map(([name, label]) =>
    button(label, `Add this ${label.toLowerCase()} at the playhead`, () => author.addAt(name, author.snap(author.playhead()))));
  const element = make("fieldset", { class: "pk-group tl-picker" }, make("legend", { text: "Take a pose" }), select, stage.element, frame.element,
    make("div", { class: "pk-row pk-even" }, ...parts));
  const choose = (name) => {
    const clip = author.clips.list.find((one) => one.label === name);
    if (!clip) return;
    Object.assign(state, { name, clips: new Clips([clip]), frame: Math.min(state.name === name ? state.frame : 0, clip.frames - 1) });
    frame.input.max = clip.frames - 1;
    frame.show(state.frame);
    Object.assign(stage.eye, { azimuth: 0.6, elevation: 0.15 });
    Object.assign(stage, { follow: true, apart: false });
    stage.show(state.clips);
  };
  const refresh = () => {
    const names = author.clips.list.map((clip) => clip.label);
    element.hidden = !names.length;
    if (select.dataset.names === JSON.stringify(names)) return;
    select.dataset.names = JSON.stringify(names);
    select.replaceChildren(...names.map((name) => make("option", { value: name, text: name })));
    choose(names.includes(state.name) ? state.name : names[0]);
    select.value = state.name;
  };
  return { element, refresh, draw, chosen: () => (state.name ? { clip: state.name, frame: state.frame } : null), dispose: () => stage.dispose() };
}
