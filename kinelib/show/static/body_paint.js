/**
 * Painting bodies on a 2-D canvas: floor, shadows, capsules from far to near, trails, contacts, what was asked for.
 *
 * A plain canvas does this for a dozen bodies at the screen's own rate, looks the same with and without a graphics card, and
 * is what `kinelib.show.body_scene` draws as a still picture.
 */
export const SIDES = { "-1": "#d55e00", 0: "#555e6d", 1: "#0072b2" };
const STANDING = "#009e73";
export const AMBER = "#f0b429"; // what was asked for
export const BROWN = "#7a5a00";
const LIGHT = [0.35, 0.25]; // metres that a shadow moves for a metre of height
const TURN = 2 * Math.PI;

const shades = new Map();

/** A colour with a share of another one; both "#rrggbb". */
export function mixed(colour, other, share) {
  const key = `${colour}${other}${share}`;
  if (!shades.has(key)) {
    const part = (text, at) => parseInt(text.slice(at, at + 2), 16);
    const parts = [1, 3, 5].map((at) => Math.round(part(colour, at) * (1 - share) + part(other, at) * share));
    shades.set(key, `rgb(${parts.join(",")})`);
  }
  return shades.get(key);
}

/** The outline of two joined discs. */
function capsule(context, ax, ay, ar, bx, by, br) {
  const length = Math.hypot(bx - ax, by - ay);
  context.beginPath();
  if (length <= Math.abs(ar - br) + 1e-6) {
    if (ar > br) context.arc(ax, ay, ar, 0, TURN);
    else context.arc(bx, by, br, 0, TURN);
    return;
  }
  const turn = Math.atan2(by - ay, bx - ax);
  const tangent = Math.acos((ar - br) / length);
  context.arc(bx, by, br, turn - tangent, turn + tangent);
  context.arc(ax, ay, ar, turn + tangent, turn - tangent + TURN);
  context.closePath();
}

const SHADES = 7; // of the floor's lines: pieces of one shade are one stroke, for strokes are what takes time

/** The floor: a line every half metre that pales with its distance from the middle. */
export function drawFloor(context, lens, centre, reach, ink) {
  const [cx, cz] = centre.map(Math.round);
  const shaded = Array.from({ length: SHADES + 1 }, () => []);
  for (let index = -2 * reach; index <= 2 * reach; index++) {
    const aside = index / 2;
    for (let from = -reach; from < reach; from++) {
      const share = Math.max(0, 1 - Math.hypot(aside, from + 0.5) / reach) ** 1.2 * (index % 2 ? 0.4 : 1);
      const shade = Math.round(share * SHADES);
      if (!shade) continue;
      shaded[shade].push([cx + from, cz + aside, cx + from + 1, cz + aside], [cx + aside, cz + from, cx + aside, cz + from + 1]);
    }
  }
  context.strokeStyle = ink;
  context.lineWidth = 1;
  shaded.forEach((pieces, shade) => {
    if (!pieces.length) return;
    context.globalAlpha = shade / SHADES;
    context.beginPath();
    for (const [ax, az, bx, bz] of pieces) {
      if (!lens.before(ax, 0, az) || !lens.before(bx, 0, bz)) continue;
      let seen = lens.look(ax, 0, az);
      context.moveTo(seen[0], seen[1]);
      seen = lens.look(bx, 0, bz);
      context.lineTo(seen[0], seen[1]);
    }
    context.stroke();
  });
  context.globalAlpha = 1;
}

/** One path for all capsules on the floor, so that the shadow is equally dark where they overlap. */
export function drawShadow(context, lens, clip, places, [ox, oz], alpha = 0.2) {
  context.beginPath();
  clip.segments.forEach(([a, b], index) => {
    const fallen = [a, b].map((point) => {
      const high = Math.max(places[3 * point + 1], 0);
      return [places[3 * point] + ox - high * LIGHT[0], places[3 * point + 2] + oz - high * LIGHT[1]];
    });
    const [[ax, az], [bx, bz]] = fallen;
    const turn = Math.atan2(bz - az, bx - ax);
    for (let corner = 0; corner < 12; corner++) {
      const atEnd = corner < 6;
      const angle = turn + (atEnd ? -Math.PI / 2 : Math.PI / 2) + (Math.PI * (corner % 6)) / 5;
      const radius = clip.radii[index][atEnd ? 1 : 0];
      const seen = lens.look((atEnd ? bx : ax) + radius * Math.cos(angle), 0, (atEnd ? bz : az) + radius * Math.sin(angle));
      if (corner) context.lineTo(seen[0], seen[1]);
      else context.moveTo(seen[0], seen[1]);
    }
    context.closePath();
  });
  context.fillStyle = `rgba(16, 22, 31, ${alpha})`;
  context.fill();
}

/** A body: a dark rim, the colour, and a light streak that makes limbs round. `colour` "" paints left and right limbs. */
export function drawBody(context, lens, clip, places, [ox, oz], colour, alpha = 1) {
  const seen = new Float64Array(4 * clip.points);
  for (let point = 0; point < clip.points; point++) {
    seen.set(lens.look(places[3 * point] + ox, places[3 * point + 1], places[3 * point + 2] + oz), 4 * point);
  }
  const near = clip.segments.map(([a, b]) => seen[4 * a + 2] + seen[4 * b + 2]);
  const order = [...clip.segments.keys()].sort((one, other) => near[one] - near[other]);
  const rim = Math.max(lens.height / 420, 0.9);
  context.globalAlpha = alpha;
  for (const index of order) {
    const [a, b] = clip.segments[index];
    const [thickA, thickB] = clip.radii[index];
    const [ax, ay, ar] = [seen[4 * a], seen[4 * a + 1], thickA * seen[4 * a + 3]];
    const [bx, by, br] = [seen[4 * b], seen[4 * b + 1], thickB * seen[4 * b + 3]];
    const own = colour || SIDES[clip.sides[index]];
    capsule(context, ax, ay, ar + rim, bx, by, br + rim);
    context.fillStyle = mixed(own, "#0b1017", 0.6);
    context.fill();
    capsule(context, ax, ay, ar, bx, by, br);
    context.fillStyle = own;
    context.fill();
    const lit = 0.28 * Math.min(ar, br);
    capsule(context, ax - 0.7 * lit, ay - lit, 0.42 * ar, bx - 0.7 * lit, by - lit, 0.42 * br);
    context.fillStyle = mixed(own, "#ffffff", 0.32);
    context.fill();
  }
  context.globalAlpha = 1;
}

/** Green discs under the feet that stand. */
export function drawStanding(context, lens, clip, places, [ox, oz], standing) {
  context.fillStyle = STANDING;
  clip.feet.forEach((joint, index) => {
    if (standing[index] < 128) return;
    context.beginPath();
    for (let corner = 0; corner < 20; corner++) {
      const angle = (TURN * corner) / 20;
      const seen = lens.look(places[3 * joint] + ox + 0.085 * Math.cos(angle), 0, places[3 * joint + 2] + oz + 0.085 * Math.sin(angle));
      if (corner) context.lineTo(seen[0], seen[1]);
      else context.moveTo(seen[0], seen[1]);
    }
    context.fill();
  });
}

/** A line on the floor through [x, z] places. */
export function drawWay(context, lens, way, [ox, oz], colour, width = 2, alpha = 0.9) {
  context.globalAlpha = alpha;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = context.lineCap = "round";
  context.beginPath();
  way.forEach(([x, z], index) => {
    if (!lens.before(x + ox, 0, z + oz)) return;
    const seen = lens.look(x + ox, 0, z + oz);
    if (index) context.lineTo(seen[0], seen[1]);
    else context.moveTo(seen[0], seen[1]);
  });
  context.stroke();
  context.globalAlpha = 1;
}

/**
 * What was asked for: a path or a waypoint on the floor, a whole pose as a ghost, a joint's place in the air over its place on
 * the floor. What has a time is clear then and pale at other times.
 */
export function drawTarget(context, lens, target, clip, offset, now) {
  const near = target.at === undefined ? 1 : Math.max(0.16, 1 - 1.6 * Math.abs(target.at - now));
  const [ox, oz] = offset;
  if (target.points) return drawWay(context, lens, target.points, offset, AMBER, 6, 0.45);
  if (target.pose) {
    if (target.pose.length === 3 * clip.points) drawBody(context, lens, clip, target.pose, offset, AMBER, 0.45 * near);
    return undefined;
  }
  const [x, y, z] = [target.x, target.y ?? 0, target.z];
  if (target.heading !== undefined && target.heading !== null) {
    const tip = [x + 0.42 * Math.sin(target.heading), z + 0.42 * Math.cos(target.heading)];
    drawWay(context, lens, [[x, z], tip], offset, BROWN, 3, near);
  }
  context.globalAlpha = near;
  let seen = lens.look(x + ox, 0, z + oz);
  const foot = [seen[0], seen[1]];
  seen = lens.look(x + ox, y, z + oz);
  if (y > 0.1) {
    context.setLineDash([3, 4]);
    context.lineWidth = 1.5;
    context.strokeStyle = BROWN;
    context.beginPath();
    context.moveTo(...foot);
    context.lineTo(seen[0], seen[1]);
    context.stroke();
    context.setLineDash([]);
  }
  context.beginPath();
  context.arc(seen[0], seen[1], Math.min(12, Math.max(4, 0.045 * seen[3])), 0, TURN);
  context.fillStyle = AMBER;
  context.fill();
  context.lineWidth = 1.5;
  context.strokeStyle = BROWN;
  context.stroke();
  context.globalAlpha = 1;
  return undefined;
}

/** Words above a head, on a pale ground. */
export function drawLabel(context, words, x, y, ink, ground) {
  context.font = "600 12px system-ui, sans-serif";
  const wide = context.measureText(words).width;
  context.globalAlpha = 0.78;
  context.fillStyle = ground;
  context.fillRect(x - wide / 2 - 5, y - 9, wide + 10, 18);
  context.globalAlpha = 1;
  context.fillStyle = ink;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(words, x, y);
}
