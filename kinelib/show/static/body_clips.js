/**
 * Motions as they come from Python: positions of all points of all frames, packed by `kinelib.show.motion_data`.
 *
 * A root path is float32, everything else float16 relative to it (half a millimetre within a body's reach); contacts are
 * bytes. Times are seconds; between frames positions are mixed linearly.
 */
import { fromHalf } from "./futures.js";

/** One motion: {label, frames, fps, points, segments, radii, sides, feet, middle, height, offset}. */
export class Clip {
  constructor(facts, buffer) {
    Object.assign(this, facts);
    const { frames, points } = facts;
    this.root = new Float32Array(buffer.slice(facts.start, facts.start + 12 * frames));
    this.places = fromHalf(new DataView(buffer, facts.start + 12 * frames, 6 * frames * points));
    this.contacts = facts.contacts ? new Uint8Array(buffer, facts.start + 12 * frames + 6 * frames * points, 4 * frames) : null;
    this.seconds = (frames - 1) / facts.fps;
    this.now = new Float32Array(3 * points);
  }

  /** Positions at a time, flat triples; the array is the clip's own and is written over by the next call. */
  at(seconds, out = this.now) {
    const last = this.frames - 1;
    const where = Math.min(last, Math.max(0, seconds * this.fps));
    const frame = Math.min(Math.floor(where), Math.max(0, last - 1));
    const next = Math.min(frame + 1, last);
    const share = where - frame;
    const { points, places, root } = this;
    for (let axis = 0; axis < 3; axis++) {
      const origin = root[3 * frame + axis] * (1 - share) + root[3 * next + axis] * share;
      for (let point = 0; point < points; point++) {
        const a = places[3 * (frame * points + point) + axis];
        const b = places[3 * (next * points + point) + axis];
        out[3 * point + axis] = origin + a + (b - a) * share;
      }
    }
    return out;
  }

  frame(seconds) {
    return Math.min(this.frames - 1, Math.max(0, Math.round(seconds * this.fps)));
  }

  /** Which feet stand, four bytes of 0 to 255; null where nobody knows. */
  standing(seconds) {
    const frame = this.frame(seconds);
    return this.contacts ? this.contacts.subarray(4 * frame, 4 * frame + 4) : null;
  }

  /** Where the body's middle is over the floor at a frame: [x, z]. */
  way(frame) {
    const at = 3 * (frame * this.points + this.middle);
    return [this.root[3 * frame] + this.places[at], this.root[3 * frame + 2] + this.places[at + 2]];
  }
}

/** Several clips at once, and where their middle goes, evened out so that an eye can follow it calmly. */
export class Clips {
  constructor(list) {
    this.list = list;
    this.seconds = Math.max(0.05, ...list.map((clip) => clip.seconds));
    this.fps = Math.max(1, ...list.map((clip) => clip.fps));
    this.centres = this.evened();
  }

  evened() {
    const count = Math.round(this.seconds * 20) + 1;
    const raw = Array.from({ length: count }, (_, tick) => {
      const sum = [0, 0];
      for (const clip of this.list) {
        const [x, z] = clip.way(clip.frame(tick / 20));
        sum[0] += x / this.list.length;
        sum[1] += z / this.list.length;
      }
      return sum;
    });
    const reach = 10;
    return raw.map((_, tick) => {
      const side = Math.min(reach, tick, count - 1 - tick);
      const window = raw.slice(tick - side, tick + side + 1);
      return [0, 1].map((axis) => window.reduce((sum, one) => sum + one[axis], 0) / window.length);
    });
  }

  /** The evened middle of all bodies at a time: [x, z]. */
  centre(seconds) {
    const where = Math.min(this.centres.length - 1, Math.max(0, seconds * 20));
    const tick = Math.floor(where);
    const next = this.centres[Math.min(tick + 1, this.centres.length - 1)];
    return this.centres[tick].map((value, axis) => value + (next[axis] - value) * (where - tick));
  }
}

/** The clips of a packed scene. */
export function unpackClips(scene) {
  const bytes = scene?.data;
  if (!bytes) return new Clips([]);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  return new Clips(scene.samples.map((facts) => new Clip(facts, buffer)));
}
