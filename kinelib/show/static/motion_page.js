/**
 * The offline page of the motion player: the player with a stand-in for Python that only keeps what it is told.
 */
import { render } from "./motion_player.js";

/** A model as a widget has it: traits by name and listeners, and nobody at the other end. */
class KeptModel {
  constructor(traits) {
    this.traits = traits;
    this.listeners = {};
  }

  get(name) {
    return this.traits[name];
  }

  set(name, value) {
    this.traits[name] = value;
  }

  on(name, hear) {
    (this.listeners[name] ??= []).push(hear);
  }

  off(name, hear) {
    this.listeners[name] = (this.listeners[name] ?? []).filter((one) => one !== hear);
  }

  save_changes() {}

  send() {}
}

const traits = JSON.parse(document.getElementById("facts").textContent);
traits.scene.data = Uint8Array.from(atob(traits.scene.data), (letter) => letter.charCodeAt(0));
render({ model: new KeptModel(traits), el: document.getElementById("player") });
