/**
 * Drawing on one 2D context: paths, trails, arrows, the dense field, a density. Nothing here keeps state.
 *
 * `to(x, y)` maps xy in [-1, 1] to CSS pixels. Lines of one colour go into one path: a stroke a sample, not a point.
 */

// Okabe and Ito's colours, as in the figures: told apart by colour-blind readers and on photographs.
export const COLOURS = ["#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#F0E442", "#0072B2", "#B7E3B0"];
export const colourOf = (sample) => COLOURS[sample % COLOURS.length];

const SOLID = []; // setLineDash
const chosen = (futures, focus) => (focus >= 0 && focus < futures.samples ? [focus] : [...Array(futures.samples).keys()]);

/** Paths from one time to another, a colour a sample: the whole future faintly, or the trail behind a moment (`least` 2). */
export function drawPaths(context, to, futures, focus, from, until, width, least = 1) {
  const place = [0, 0];
  const frames = futures.frames - 1;
  const first = Math.ceil(from * frames + 1e-6);
  const last = Math.floor(until * frames);
  context.lineWidth = width;
  context.lineJoin = context.lineCap = "round";
  for (const sample of chosen(futures, focus)) {
    context.strokeStyle = colourOf(sample);
    context.beginPath();
    for (let path = sample * futures.points; path < (sample + 1) * futures.points; path++) {
      if (futures.moves[path] < least) continue;
      futures.at(path, from, place);
      context.moveTo(...to(place[0], place[1]));
      for (let frame = first; frame <= last; frame++) {
        const i = 2 * (path * futures.frames + frame);
        context.lineTo(...to(futures.xy[i], futures.xy[i + 1]));
      }
      futures.at(path, until, place);
      context.lineTo(...to(place[0], place[1]));
    }
    context.stroke();
  }
}

/** The points at one moment, a dark rim so that they are seen on any picture. */
export function drawHeads(context, to, futures, focus, time, radius) {
  const place = [0, 0];
  context.strokeStyle = "rgba(10, 16, 26, 0.75)";
  context.lineWidth = 1;
  for (const sample of chosen(futures, focus)) {
    context.fillStyle = colourOf(sample);
    context.beginPath();
    for (let path = sample * futures.points; path < (sample + 1) * futures.points; path++) {
      if (futures.moves[path] < 2) continue;
      futures.at(path, time, place);
      const [x, y] = to(place[0], place[1]);
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, 2 * Math.PI);
    }
    context.stroke();
    context.fill();
  }
}

/** The hue of a direction, as on the little wheel in the corner of the field view. */
export function hueOf(dx, dy) {
  return (Math.atan2(dy, dx) * 180) / Math.PI + 180;
}

/** The dense field of one sample at a moment: an arrow from where each point started to where it is, coloured by direction. */
export function drawField(context, to, futures, sample, time) {
  const place = [0, 0];
  const start = [0, 0];
  context.lineWidth = 1.6;
  context.lineCap = "round";
  for (let path = sample * futures.points; path < (sample + 1) * futures.points; path++) {
    futures.at(path, 0, start);
    futures.at(path, time, place);
    const [x, y] = to(start[0], start[1]);
    const [goalX, goalY] = to(place[0], place[1]);
    const far = Math.hypot(goalX - x, goalY - y);
    context.strokeStyle = context.fillStyle = `hsl(${hueOf(goalX - x, goalY - y)} 95% ${far < 2 ? 92 : 62}%)`;
    context.globalAlpha = far < 2 ? 0.35 : 0.95;
    context.beginPath();
    if (far >= 2) {
      context.moveTo(x, y);
      context.lineTo(goalX, goalY);
      context.stroke();
      context.beginPath();
    }
    context.arc(goalX, goalY, far < 2 ? 1 : 2, 0, 2 * Math.PI);
    context.fill();
  }
  context.globalAlpha = 1;
}

/** A small wheel that says which colour is which direction. */
export function drawWheel(context, x, y, radius) {
  for (let degrees = 0; degrees < 360; degrees += 10) {
    const angle = (degrees * Math.PI) / 180;
    context.fillStyle = `hsl(${hueOf(Math.cos(angle), Math.sin(angle))} 95% 62%)`;
    context.beginPath();
    context.moveTo(x, y);
    context.arc(x, y, radius, angle - 0.09, angle + 0.09);
    context.fill();
  }
  context.strokeStyle = "rgba(255, 255, 255, 0.9)";
  context.lineWidth = 1.5;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.stroke();
}

// Dark violet to light yellow, the figures' "inferno" at five places.
const HEAT = [[20, 11, 54], [106, 23, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

/** Colours a density (size * size, peak 1) into an image of that size; thin density is transparent. */
export function heatImage(cells, size) {
  const image = new ImageData(size, size);
  for (let i = 0; i < cells.length; i++) {
    const value = cells[i] * (HEAT.length - 1);
    const low = Math.min(Math.floor(value), HEAT.length - 2);
    const share = value - low;
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * i + channel] = HEAT[low][channel] + share * (HEAT[low + 1][channel] - HEAT[low][channel]);
    }
    image.data[4 * i + 3] = 255 * Math.min(0.88, 2.2 * cells[i]);
  }
  return image;
}

function outlined(context, width, colour, draw) {
  context.lineJoin = context.lineCap = "round";
  context.strokeStyle = "rgba(8, 12, 20, 0.85)";
  context.lineWidth = width + 3;
  draw();
  context.stroke();
  context.strokeStyle = colour;
  context.lineWidth = width;
  draw();
  context.stroke();
}

/** One poke: an arrow with a ring at its start, or a pinned ring for "hold still"; its time where that is not the end. */
export function drawPoke(context, to, poke, { selected = false, number = 0, ghost = false } = {}) {
  const colour = selected ? "#FFE14D" : "#FFFFFF";
  const [x, y] = to(poke[0], poke[1]);
  const [goalX, goalY] = to(poke[2], poke[3]);
  const far = Math.hypot(goalX - x, goalY - y);
  context.globalAlpha = ghost ? 0.55 : 1;
  if (far < 1.5) {
    outlined(context, 2.2, colour, () => {
      context.beginPath();
      context.arc(x, y, 9, 0, 2 * Math.PI);
      context.moveTo(x - 4, y);
      context.lineTo(x + 4, y);
      context.moveTo(x, y - 4);
      context.lineTo(x, y + 4);
    });
  } else {
    const [ux, uy] = [(goalX - x) / far, (goalY - y) / far];
    const head = Math.min(13, Math.max(7, far * 0.35));
    outlined(context, 2.6, colour, () => {
      context.beginPath();
      context.moveTo(x + ux * Math.min(5, far), y + uy * Math.min(5, far));
      context.lineTo(goalX - ux * 2, goalY - uy * 2);
      context.moveTo(goalX - head * (ux - 0.5 * uy), goalY - head * (uy + 0.5 * ux));
      context.lineTo(goalX, goalY);
      context.lineTo(goalX - head * (ux + 0.5 * uy), goalY - head * (uy - 0.5 * ux));
    });
    outlined(context, 2.2, colour, () => {
      context.beginPath();
      context.arc(x, y, 5, 0, 2 * Math.PI);
    });
  }
  const words = [number ? String(number) : "", poke[4] < 1 ? `t ${poke[4].toFixed(2)}` : ""].filter(Boolean).join(" · ");
  if (words) drawWords(context, words, goalX + 11, goalY - 9, colour);
  context.globalAlpha = 1;
}

/** Short text on a picture, outlined. */
export function drawWords(context, words, x, y, colour = "#FFFFFF") {
  context.font = "600 12px system-ui, sans-serif";
  context.lineJoin = "round";
  context.lineWidth = 3.5;
  context.strokeStyle = "rgba(8, 12, 20, 0.85)";
  context.strokeText(words, x, y);
  context.fillStyle = colour;
  context.fillText(words, x, y);
}

/** The point that is asked about. */
export function drawQuestion(context, [x, y]) {
  context.beginPath();
  context.arc(x, y, 9, 0, 2 * Math.PI);
  context.fillStyle = "#FFE14D";
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = "rgba(8, 12, 20, 0.9)";
  context.stroke();
  context.font = "700 13px system-ui, sans-serif";
  context.fillStyle = "#10161f";
  context.textAlign = "center";
  context.fillText("?", x, y + 4.5);
  context.textAlign = "start";
}

/** The cross that the arrow keys move. */
export function drawCross(context, [x, y]) {
  context.setLineDash(SOLID);
  outlined(context, 1.6, "#FFE14D", () => {
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 5 * dx, y + 5 * dy);
      context.lineTo(x + 14 * dx, y + 14 * dy);
    }
  });
}
