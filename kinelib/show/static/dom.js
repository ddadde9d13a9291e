/**
 * Small helpers for building the page: elements, buttons, sliders. No framework, no styling here.
 */

/** Makes an element; attributes that start with "on" are listeners, `text` is its text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(Boolean));
  return element;
}

/** A push button with a visible text or symbol and an accessible label. */
export function button(text, label, onclick, extra = {}) {
  return make("button", { type: "button", text, title: label, "aria-label": label, onclick, ...extra });
}

/** A labelled slider: {element, value, show(value)}; `onchange(value)` is called when the hand lets go, or `oninput` live. */
export function slider(label, { min, max, step, value, format = String, oninput, onchange }) {
  const shown = make("output", { text: format(value) });
  const input = make("input", { type: "range", min, max, step, "aria-label": label });
  input.value = value;
  const tell = () => {
    shown.textContent = format(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  tell();
  input.addEventListener("input", () => {
    tell();
    oninput?.(Number(input.value));
  });
  input.addEventListener("change", () => onchange?.(Number(input.value)));
  const element = make("label", { class: "pk-slider" }, make("span", { text: label }), input, shown);
  return {
    element,
    input,
    show(next) {
      input.value = next;
      tell();
    },
  };
}

/** Hands bytes to the reader as a download; nothing leaves the page. */
export function download(bytes, name, type) {
  const address = URL.createObjectURL(new Blob([bytes], { type }));
  const link = make("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
