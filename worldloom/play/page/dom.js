// Small words for making and finding elements.

export const find = (id) => document.getElementById(id);

/** An element with attributes, properties and children. Listeners are given as "onclick" and the like. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

/** Sets a text only when it is another one, so that nothing is laid out or read aloud for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** "1 step", "2 steps". */
export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** A number as short as it can be read: 0.034, 1.25, 18.4, 1,250. */
export function brief(value) {
  if (!Number.isFinite(value)) return "unknown";
  const size = Math.abs(value);
  if (size !== 0 && size < 0.0005) return value.toExponential(1);
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 3;
  const rounded = Number(value.toFixed(digits));
  return (Object.is(rounded, -0) ? 0 : rounded).toLocaleString("en", { maximumFractionDigits: digits });
}

/** A canvas as many device pixels large as it is shown, ready to draw on in CSS pixels. */
export function freshCanvas(canvas) {
  const ratio = globalThis.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  const [wide, tall] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== tall) Object.assign(canvas, { width: wide, height: tall });
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

/** The colours of the style sheet, for canvases. Read again when the scheme changes. */
export const colors = {};
const NAMES = ["text", "muted", "line", "surface", "accent", "good", "fair", "bad", "edit", "look"];
const dark = matchMedia("(prefers-color-scheme: dark)");

export function readColors() {
  const style = getComputedStyle(document.documentElement);
  for (const name of NAMES) colors[name] = style.getPropertyValue(`--${name}`).trim();
  colors.series = Array.from({ length: 9 }, (_, i) => style.getPropertyValue(`--series-${i}`).trim());
}

export function onScheme(change) {
  dark.addEventListener("change", () => {
    readColors();
    change();
  });
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
