/**
 * What arrives from Python, as typed arrays: futures (K samples, N points, T frames, xy), in half precision on the wire.
 *
 * Positions are xy in [-1, 1] across the picture, y downwards.
 */

let table; // half-precision bits -> number, made on first use

function halves() {
  if (table) return table;
  table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
}

/** Decodes little-endian half-precision numbers from a DataView (what widgets deliver) into a Float32Array. */
export function fromHalf(view) {
  const numbers = halves();
  const count = view.byteLength >> 1;
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = numbers[view.getUint16(2 * i, true)];
  return values;
}

const STILL = 0.06; // half frames: a point that never gets farther from its start is not drawn
const QUIET = 0.2; // and one that gets less far than this share of its sample's farthest is drawn faintly, without a head

export class Futures {
  /** @param {{samples: number, points: number, frames: number, data: DataView | Float32Array}} answer */
  constructor({ samples, points, frames, data, ...facts }) {
    Object.assign(this, { samples, points, frames, facts });
    this.xy = data instanceof Float32Array ? data : fromHalf(data);
    if (this.xy.length !== samples * points * frames * 2) throw new Error("the futures and their stated shape differ");
    this.moves = this.liveliness(); // a path: 0 stands still, 1 moves a little, 2 moves
  }

  liveliness() {
    const { samples, points, frames, xy } = this;
    const reach = new Float32Array(samples * points);
    for (let path = 0; path < samples * points; path++) {
      const first = 2 * path * frames;
      for (let i = first; i < first + 2 * frames; i += 2) {
        reach[path] = Math.max(reach[path], Math.hypot(xy[i] - xy[first], xy[i + 1] - xy[first + 1]));
      }
    }
    return Uint8Array.from(reach, (far, path) => {
      const sample = Math.floor(path / points);
      const farthest = reach.subarray(sample * points, (sample + 1) * points).reduce((a, b) => Math.max(a, b), 0);
      return far <= STILL ? 0 : far < QUIET * farthest ? 1 : 2;
    });
  }

  /** Writes the place of path = sample * points + point at a time in [0, 1] into out[0], out[1]; between frames linearly. */
  at(path, time, out) {
    const frame = time * (this.frames - 1);
    const before = Math.min(Math.floor(frame), this.frames - 1);
    const share = frame - before;
    const i = 2 * (path * this.frames + before);
    const j = before + 1 < this.frames ? i + 2 : i;
    out[0] = this.xy[i] + share * (this.xy[j] - this.xy[i]);
    out[1] = this.xy[i + 1] + share * (this.xy[j + 1] - this.xy[i + 1]);
  }
}

/**
 * A density over the picture from the sampled places of one point: a sum of Gaussians on size x size cells, peak 1.
 * The Python side has the same sum in `kinelib.show.tracks.show_density`.
 */
export function density(futures, time, size, blur = 0.05) {
  const cells = new Float32Array(size * size);
  const place = [0, 0];
  const reach = Math.ceil(1.5 * blur * size); // three standard deviations; a cell is 2 / size wide
  for (let sample = 0; sample < futures.samples; sample++) {
    futures.at(sample * futures.points, time, place);
    const x = ((place[0] + 1) / 2) * size - 0.5;
    const y = ((place[1] + 1) / 2) * size - 0.5;
    for (let row = Math.max(0, Math.round(y) - reach); row <= Math.min(size - 1, Math.round(y) + reach); row++) {
      for (let column = Math.max(0, Math.round(x) - reach); column <= Math.min(size - 1, Math.round(x) + reach); column++) {
        const far = ((column - x) ** 2 + (row - y) ** 2) * (2 / size) ** 2;
        cells[row * size + column] += Math.exp(-far / (2 * blur * blur));
      }
    }
  }
  const peak = cells.reduce((most, value) => Math.max(most, value), 1e-9);
  for (let i = 0; i < cells.length; i++) cells[i] /= peak;
  return cells;
}
