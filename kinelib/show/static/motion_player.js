/**
 * The motion player. Served by `kinelib.show.motion_player` in Jupyter and, unchanged, by its offline page.
 */
import { make } from "./dom.js";
import { MotionView } from "./motion_view.js";

/** What the widget and the offline page call. */
export function render({ model, el }) {
  const view = new MotionView(model);
  const label = model.get("title") || "Motion player";
  // Jupyter's own shortcuts (Delete, Enter, arrows) leave the keys to us inside.
  el.replaceChildren(make("section", { class: "pk mp-root", "aria-label": label, "data-lm-suppress-shortcuts": "true" }, view.element));
  return () => view.dispose();
}

export default { render };
