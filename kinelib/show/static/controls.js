/**
 * What stands beside the picture: which picture, which view, which sample, how to sample, one poke's time, downloads.
 *
 * Controls write what the hand chose through `act` and show what the model says in `refresh`; they keep no state of their own.
 */
import { button, make, slider } from "./dom.js";
import { colourOf } from "./paint.js";

const VIEWS = [
  ["futures", "Futures", "Sampled futures, a colour each"],
  ["field", "Field", "Where every point of one sample goes"],
  ["where", "Where?", "Tap a point: where will it be, over many samples?"],
];
const BIGGEST_UPLOAD = 40e6; // bytes

const group = (title, ...children) => make("fieldset", { class: "pk-group" }, make("legend", { text: title }), ...children);

/** Undo, redo, clear: a row over the picture. */
export function toolbar(act) {
  const undo = button("↶ Undo", "Undo (Ctrl+Z)", () => act.travel("undo"));
  const redo = button("↷ Redo", "Redo (Ctrl+Y)", () => act.travel("redo"));
  const clear = button("✕ Clear", "Remove all pokes", () => act.travel("clear"));
  const element = make("div", { class: "pk-toolbar", role: "toolbar", "aria-label": "Pokes" }, undo, redo, clear);
  const refresh = (pokes) => {
    undo.disabled = !pokes.past.length;
    redo.disabled = !pokes.future.length;
    clear.disabled = !pokes.list.length;
  };
  return { element, refresh };
}

/** Futures, field, where?: one of three. */
export function viewTabs(act) {
  const tabs = VIEWS.map(([view, text, label]) =>
    make("button", { type: "button", role: "radio", text, title: label, "data-view": view, onclick: () => act.set({ view }) }),
  );
  const element = make("div", { class: "pk-tabs", role: "radiogroup", "aria-label": "View" }, ...tabs);
  const refresh = (view, offered = VIEWS.map(([name]) => name)) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-checked", String(tab.dataset.view === view));
      tab.hidden = !offered.includes(tab.dataset.view);
    }
  };
  return { element, refresh };
}

/** A chip a sample, to look at one alone. */
export function sampleChips(act) {
  const element = make("div", { class: "pk-chips", role: "radiogroup", "aria-label": "Sample to look at" });
  let shown = "";
  const refresh = (samples, focus, one = false) => {
    if (shown !== String(samples)) {
      shown = String(samples);
      const chip = (sample) =>
        button(sample < 0 ? "all" : String(sample + 1), sample < 0 ? "All samples" : `Only sample ${sample + 1}`,
          () => act.look(sample), { role: "radio", "data-sample": sample, style: sample < 0 ? "" : `--chip: ${colourOf(sample)}` });
      element.replaceChildren(...[-1, ...Array(samples).keys()].map(chip));
    }
    for (const chip of element.children) chip.setAttribute("aria-checked", String(Number(chip.dataset.sample) === focus));
    element.firstChild.hidden = one;
  };
  return { element, refresh };
}

/** The selected poke: when it has to be there, and a way to remove it. */
export function pokeEditor(act) {
  const title = make("legend", { text: "Goal time" });
  const time = slider("arrive at", {
    min: 0.05, max: 1, step: 0.05, value: 1, format: (value) => (value >= 1 ? "end" : `t ${value.toFixed(2)}`),
    onchange: (value) => act.retime(value),
  });
  const remove = button("Remove", "Remove the selected poke (Delete)", () => act.remove());
  const element = make("fieldset", { class: "pk-group pk-poke" }, title, time.element, remove);
  const refresh = (pokes, usual) => {
    const poke = pokes.list[pokes.selected];
    title.textContent = poke ? `Poke ${pokes.selected + 1}` : "Goal time of the next poke";
    time.show(poke ? poke[4] : usual);
    remove.disabled = !poke;
  };
  return { element, refresh };
}

/** K, solver steps, guidance, seed, and a sentence where the model reads one. */
export function samplingControls(act) {
  const samples = slider("futures K", { min: 1, max: 16, step: 1, value: 8, onchange: (value) => act.set({ samples: value }) });
  const steps = slider("solver steps", { min: 1, max: 30, step: 1, value: 6, onchange: (value) => act.set({ steps: value }) });
  const guidance = slider("guidance", {
    min: 0, max: 4, step: 0.25, value: 1, format: (value) => value.toFixed(2), onchange: (value) => act.set({ guidance: value }),
  });
  const seed = make("input", {
    type: "number", min: 0, step: 1, "aria-label": "Seed",
    onchange: () => act.set({ seed: Math.max(0, Math.round(Number(seed.value)) || 0) }),
  });
  const dice = button("⚄", "Other futures: a new seed", () => act.set({ seed: Math.floor(Math.random() * 1e6) }));
  const seedRow = make("div", { class: "pk-row" }, make("span", { text: "seed" }), seed, dice);
  const text = make("input", {
    type: "text", maxlength: 200, placeholder: "what happens, e.g. the car drives left", "aria-label": "What shall happen, in a sentence",
    onchange: () => act.set({ text: text.value }),
  });
  const element = group("Sampling", samples.element, steps.element, guidance.element, seedRow, text);
  const refresh = (model) => {
    const controls = model.get("controls");
    samples.show(model.get("samples"));
    steps.show(model.get("steps"));
    guidance.show(model.get("guidance"));
    if (document.activeElement !== seed) seed.value = model.get("seed");
    if (document.activeElement !== text) text.value = model.get("text");
    samples.element.hidden = !controls.includes("samples");
    steps.element.hidden = !controls.includes("steps");
    guidance.element.hidden = !controls.includes("guidance");
    seedRow.hidden = !controls.includes("seed");
    text.hidden = !model.get("takes_text");
    element.hidden = !controls.length && !model.get("takes_text");
  };
  return { element, refresh };
}

/** Which picture: a list, another scene, a frame of a film, an upload. */
export function pictureChooser(act) {
  const select = make("select", { "aria-label": "Picture", onchange: () => act.set({ source: select.value, moment: 0 }) });
  const another = button("⟳ Another", "Another one of this kind", () => act.another());
  const moment = slider("frame", { min: 0, max: 1, step: 1, value: 0, onchange: (value) => act.set({ moment: value }) });
  const file = make("input", { type: "file", accept: "image/*,video/*", class: "pk-hidden", "aria-label": "Upload a picture or a video" });
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    if (chosen.size > BIGGEST_UPLOAD) act.complain(`${chosen.name} is larger than 40 MB; choose a smaller picture or a shorter video`);
    else act.upload(chosen.name, await chosen.arrayBuffer());
  });
  const upload = button("Upload…", "Use a picture or a video of your own", () => file.click());
  const row = make("div", { class: "pk-row pk-even" }, another, upload, file);
  const element = group("Picture", select, row, moment.element);
  const refresh = (model) => {
    const sources = model.get("sources");
    if (select.dataset.names !== JSON.stringify(sources)) {
      select.dataset.names = JSON.stringify(sources);
      select.replaceChildren(...sources.map((name) => make("option", { value: name, text: name })));
    }
    select.value = model.get("source");
    another.disabled = !model.get("has_more");
    moment.input.max = Math.max(1, model.get("moments") - 1);
    moment.show(model.get("moment"));
    moment.element.hidden = model.get("moments") < 2;
    upload.hidden = !model.get("accepts_upload");
    element.hidden = sources.length < 2 && upload.hidden;
  };
  return { element, refresh };
}

/** One button a file format. */
export function downloads(act) {
  const row = make("div", { class: "pk-row pk-even" });
  const element = group("Save what you see", row);
  const refresh = (formats, ready) => {
    if (row.children.length !== formats.length) {
      row.replaceChildren(...formats.map((format) => button(format === "parquet" ? "Parquet" : format.toUpperCase(), `Download as ${format}`, () => act.save(format))));
    }
    for (const one of row.children) one.disabled = !ready;
    element.hidden = !formats.length;
  };
  return { element, refresh };
}
