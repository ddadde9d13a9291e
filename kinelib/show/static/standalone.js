/**
 * The offline page: the poke canvas with a stand-in for Python, which looks up the nearest of the stored pokes.
 */
import { render } from "./poke_canvas.js";

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A model as a widget has it: traits by name, listeners, and no one at the other end but `answer`. */
class LocalModel {
  constructor(traits, answer) {
    this.traits = traits;
    this.answer = answer;
    this.listeners = {};
    this.changed = new Set();
  }

  get(name) {
    return this.traits[name];
  }

  set(name, value) {
    this.traits[name] = value;
    this.changed.add(name);
  }

  on(name, hear) {
    (this.listeners[name] ??= []).push(hear);
  }

  off(name, hear) {
    this.listeners[name] = (this.listeners[name] ?? []).filter((one) => one !== hear);
  }

  tell(name) {
    for (const hear of this.listeners[`change:${name}`] ?? []) hear();
  }

  save_changes() {
    const changed = [...this.changed];
    this.changed.clear();
    changed.forEach((name) => this.tell(name));
    if (changed.includes("request")) this.answer(this);
  }

  send() {}
}

/** The stored poke nearest to a poke: starts count, and goals relative to them count as much. */
export function nearest(stored, poke) {
  let best = 0;
  let least = Infinity;
  stored.forEach((other, index) => {
    if (!other) return;
    const start = (poke[0] - other[0]) ** 2 + (poke[1] - other[1]) ** 2;
    const [dx, dy] = [poke[2] - poke[0] - other[2] + other[0], poke[3] - poke[1] - other[3] + other[1]];
    const far = start + dx * dx + dy * dy;
    if (far < least) [best, least] = [index, far];
  });
  return best;
}

/** One stored entry as futures (K, N, T, 2): steps are added up, scaled, and put onto the points' places. */
export function unpack(facts, packed, entry) {
  const { samples, frames, points } = facts;
  const count = points.length;
  const later = frames - 1;
  const size = 2 * samples * later * count;
  const scale = facts.scales[entry] / 127;
  const xy = new Float32Array(samples * count * frames * 2);
  for (let axis = 0; axis < 2; axis++) {
    for (let sample = 0; sample < samples; sample++) {
      for (let point = 0; point < count; point++) {
        let sum = 0;
        const to = ((sample * count + point) * frames) * 2 + axis;
        xy[to] = points[point][axis];
        for (let frame = 0; frame < later; frame++) {
          sum = (sum + packed[entry * size + ((axis * samples + sample) * later + frame) * count + point]) << 24 >> 24;
          xy[to + 2 * (frame + 1)] = points[point][axis] + sum * scale;
        }
      }
    }
  }
  return { samples, points: count, frames, data: xy };
}

async function start() {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const packed = await inflate(bytesOf(facts.futures));

  const answer = (model) => {
    const poke = model.get("pokes").at(-1);
    const entry = poke ? nearest(facts.pokes, poke) : 0;
    const note = poke ? "looked up for the nearest stored poke, drawn faintly" : "without a poke";
    const futures = unpack(facts, packed, entry);
    model.traits.answer_0 = { ...futures, request: model.get("request"), milliseconds: 0, note, stored: facts.pokes[entry] };
    model.traits.field_0 = { ...futures, request: model.get("request"), milliseconds: 0 };
    model.tell("answer_0");
    model.tell("field_0");
  };

  const model = new LocalModel(
    {
      picture: bytesOf(facts.picture), picture_size: facts.picture_size, names: ["stored"], pokes: [], most_pokes: 1,
      samples: facts.samples, steps: 1, guidance: 1, seed: 0, text: "", takes_text: false, controls: [], request: 0,
      busy: false, error: "", view: "futures", views: ["futures", "field"], focus: -1, question: null, sources: [], source: "",
      draw: 0, moment: 0, moments: 0, has_more: false, accepts_upload: false, formats: [], fixed_time: true,
    },
    answer,
  );
  answer(model);
  render({ model, el: document.getElementById("canvas") });
}

start();
