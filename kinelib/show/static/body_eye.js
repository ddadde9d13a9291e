/**
 * The eye that looks at bodies: the same numbers as `Eye` in `kinelib.show.stick_figures`.
 *
 * Metres, y up. Azimuth 0 looks from +z and grows towards +x; distance is from the target; places on the screen are pixels.
 */
export const FOCAL = 1.6; // distance from the eye to a picture of height 1
const LOWEST = -0.2;
const HIGHEST = 1.565; // radians; straight down, a hair less

export class Eye {
  constructor({ target = [0, 0.9, 0], azimuth = 0.6, elevation = 0.22, distance = 4.5 } = {}) {
    Object.assign(this, { target: [...target], azimuth, elevation, distance });
  }

  axes() {
    const [sa, ca, se, ce] = [Math.sin(this.azimuth), Math.cos(this.azimuth), Math.sin(this.elevation), Math.cos(this.elevation)];
    return [ca, 0, -sa, -sa * se, ce, -ca * se, sa * ce, se, ca * ce];
  }

  turn(dAzimuth, dElevation) {
    this.azimuth += dAzimuth;
    this.elevation = Math.min(HIGHEST, Math.max(LOWEST, this.elevation + dElevation));
  }

  zoom(factor) {
    this.distance = Math.min(60, Math.max(0.6, this.distance * factor));
  }

  /** Moves the target by pixels of a picture of this height. */
  pan(dx, dy, height) {
    const metre = (FOCAL * height) / this.distance;
    const m = this.axes();
    for (let i = 0; i < 3; i++) this.target[i] += (-dx * m[i] + dy * m[3 + i]) / metre;
  }

  /** A lens for a picture of so many pixels. */
  lens(width, height) {
    return new Lens(this, width, height);
  }

  /** Moves so that points (flat triples) just fill a picture of this width to height; its directions stay. */
  fit(cloud, aspect, margin = 0.09) {
    const count = cloud.length / 3;
    if (!count) return;
    const half = [(aspect / 2) * (1 - 2 * margin), 0.5 * (1 - 2 * margin)];
    const m = this.axes();
    const low = [Infinity, Infinity, Infinity];
    const high = [-Infinity, -Infinity, -Infinity];
    for (let i = 0; i < cloud.length; i++) {
      low[i % 3] = Math.min(low[i % 3], cloud[i]);
      high[i % 3] = Math.max(high[i % 3], cloud[i]);
    }
    this.target = low.map((value, i) => (value + high[i]) / 2);
    for (let round = 0; round < 4; round++) {
      const seen = new Float64Array(cloud.length);
      let distance = 0.6;
      for (let p = 0; p < count; p++) {
        const [x, y, z] = [0, 1, 2].map((i) => cloud[3 * p + i] - this.target[i]);
        for (let i = 0; i < 3; i++) seen[3 * p + i] = m[3 * i] * x + m[3 * i + 1] * y + m[3 * i + 2] * z;
        for (let i = 0; i < 2; i++) distance = Math.max(distance, seen[3 * p + 2] + (FOCAL * Math.abs(seen[3 * p + i])) / half[i]);
      }
      this.distance = distance;
      const off = [0, 1].map((i) => {
        let [least, most] = [Infinity, -Infinity];
        for (let p = 0; p < count; p++) {
          const place = seen[3 * p + i] / (distance - seen[3 * p + 2]);
          least = Math.min(least, place);
          most = Math.max(most, place);
        }
        return ((least + most) / 2) * distance;
      });
      for (let i = 0; i < 3; i++) this.target[i] += off[0] * m[i] + off[1] * m[3 + i];
    }
  }
}

/** Turns metres into pixels; made anew whenever the eye moves. */
export class Lens {
  constructor(eye, width, height) {
    Object.assign(this, { eye, width, height, m: eye.axes(), target: eye.target, distance: eye.distance });
    this.seen = [0, 0, 0, 0]; // x, y, nearness, pixels a metre
  }

  /** Looks at a point; the answer lies in `seen` until the next look. */
  look(x, y, z) {
    const { m, target, seen } = this;
    const [a, b, c] = [x - target[0], y - target[1], z - target[2]];
    const near = m[6] * a + m[7] * b + m[8] * c;
    const scale = (FOCAL * this.height) / Math.max(this.distance - near, 0.05 * this.distance);
    seen[0] = this.width / 2 + (m[0] * a + m[1] * b + m[2] * c) * scale;
    seen[1] = this.height / 2 - (m[3] * a + m[4] * b + m[5] * c) * scale;
    seen[2] = near;
    seen[3] = scale;
    return seen;
  }

  /** Whether a point lies well before the eye. */
  before(x, y, z) {
    const { m, target } = this;
    return m[6] * (x - target[0]) + m[7] * (y - target[1]) + m[8] * (z - target[2]) < 0.9 * this.distance;
  }
}
