/**
 * The clock of everything that moves: play, pause, scrub, speed, trails.
 *
 * It knows nothing about what is drawn: it calls `ontime(time, alpha)` with time in [0, 1] whenever the picture has to be
 * drawn again, and keeps still otherwise. Point futures use it, and so can bodies, or any motion of one duration.
 */
import { button, make, slider } from "./dom.js";

const SPEEDS = [0.25, 0.5, 1, 2];
const FADE = 300; // milliseconds in which new motion fades in

export class Player {
  /**
   * @param {object} options
   * @param {(time: number, alpha: number) => void} options.ontime draws the moment
   * @param {number} [options.seconds] duration at speed 1
   * @param {number} [options.hold] seconds to rest at the end before it starts again
   * @param {number} [options.trail] share of the duration that stays visible behind a point
   */
  constructor({ ontime, seconds = 2.4, hold = 0.8, trail = 0.35 }) {
    this.ontime = ontime;
    this.seconds = seconds;
    this.hold = hold;
    this.trail = trail;
    this.speed = 1;
    this.time = 1;
    this.playing = false;
    this.standing = false; // whether playing waits for new motion
    this.born = -FADE; // when the present motion arrived
    this.rest = 0;
    this.ticket = 0;
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.element = this.build();
  }

  build() {
    this.toggleButton = button("▶", "Play", () => this.toggle(), { class: "pk-play" });
    this.scrub = make("input", {
      type: "range", min: 0, max: 1, step: 0.001, class: "pk-scrub", "aria-label": "Time, 0 is the first frame and 1 the last",
      oninput: () => {
        this.pause();
        this.seek(Number(this.scrub.value));
      },
    });
    this.clock = make("output", { class: "pk-clock" });
    this.speedSelect = make(
      "select",
      { "aria-label": "Speed", title: "Speed", onchange: () => (this.speed = Number(this.speedSelect.value)) },
      ...SPEEDS.map((speed) => make("option", { value: speed, text: `${speed}×`, selected: speed === 1 })),
    );
    this.trailSlider = slider("trail", {
      min: 0, max: 1, step: 0.05, value: this.trail, format: (share) => `${Math.round(100 * share)} %`,
      oninput: (share) => {
        this.trail = share;
        this.redraw();
      },
    });
    this.showTime();
    return make(
      "div",
      { class: "pk-player", role: "group", "aria-label": "Player" },
      this.toggleButton, this.scrub, this.clock, this.speedSelect, this.trailSlider.element,
    );
  }

  /** New motion has arrived: fade it in and play it from the start (or show its end to who prefers no animation). */
  restart() {
    this.carryOn();
    this.born = performance.now();
    this.rest = 0;
    if (this.still) this.seek(1);
    else {
      this.time = 0;
      this.play();
    }
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  play() {
    if (this.time >= 1) this.time = 0;
    this.playing = true;
    this.last = performance.now();
    this.showButton();
    this.redraw();
  }

  pause() {
    this.playing = false;
    this.showButton();
  }

  /** Goes to a time in [0, 1]. */
  seek(time) {
    this.time = Math.min(1, Math.max(0, time));
    this.redraw();
  }

  /**
   * Stops playing until `carryOn`, or for `limit` ms at most, while new motion is being made: the model may have to share
   * the processor with the browser, and every repaint would keep it waiting.
   */
  standStill(limit = 2000) {
    clearTimeout(this.patience);
    this.standing = true;
    this.patience = setTimeout(() => this.carryOn(), limit);
  }

  carryOn() {
    clearTimeout(this.patience);
    if (!this.standing) return;
    this.standing = false;
    this.last = performance.now();
    this.redraw();
  }

  /** Draws once, at the next repaint; several calls before it are one. */
  redraw() {
    if (!this.ticket) this.ticket = requestAnimationFrame((now) => this.tick(now));
  }

  tick(now) {
    this.ticket = 0;
    const moving = this.playing && !this.standing;
    if (moving) {
      const passed = ((now - this.last) / 1000) * this.speed;
      this.last = now;
      if (this.time < 1) this.time = Math.min(1, this.time + Math.max(0, passed) / this.seconds);
      else if ((this.rest += passed) > this.hold) this.time = this.rest = 0;
    }
    const alpha = this.still ? 1 : Math.min(1, Math.max(0.3, (now - this.born) / FADE));
    this.showTime();
    this.ontime(this.time, alpha);
    if (moving || alpha < 1) this.redraw();
  }

  showTime() {
    this.scrub.value = this.time;
    this.clock.textContent = `t ${this.time.toFixed(2)}`;
    this.scrub.setAttribute("aria-valuetext", this.clock.textContent);
  }

  showButton() {
    this.toggleButton.textContent = this.playing ? "❚❚" : "▶";
    const label = this.playing ? "Pause" : "Play";
    this.toggleButton.title = label;
    this.toggleButton.setAttribute("aria-label", label);
  }

  dispose() {
    this.pause();
    clearTimeout(this.patience);
    cancelAnimationFrame(this.ticket);
  }
}
