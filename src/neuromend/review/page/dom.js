/** Small helpers for the page's elements. Text from files and from the server only ever becomes a text node. */

export const byId = (id) => document.getElementById(id);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/**
 * An element with properties, listeners ("onclick"), data and aria attributes, and children (nodes or text).
 * There is no way to hand markup to it.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && typeof value !== "object") element[name] = value;
    else element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Mark one of several buttons as pressed: the one whose data attribute has the value. */
export function press(attribute, value) {
  for (const button of all(`[data-${attribute}]`)) {
    button.setAttribute("aria-pressed", String(button.dataset[attribute] === value));
  }
}

/**
 * Fill a select with options [{value, text, title}] and choose one; a value that is not there chooses the first.
 * `title` is what is said and shown of a text that is shortened.
 */
export function choices(select, options, chosen) {
  select.replaceChildren(...options.map(({ value, text, title }) => make("option", { value, title, "aria-label": title }, text)));
  if (options.some(({ value }) => value === chosen)) select.value = chosen;
  select.title = select.selectedOptions[0]?.title ?? "";
  return select.value;
}

/** A long name of a file without its middle and its ending; most of what is kept is at its end, where files differ. */
export function shortened(name, most) {
  if (name.length <= most) return name;
  const letters = [...name.replace(/\.(nii(\.gz)?|mg[hz]|img|hdr)$/i, "")];
  if (letters.length <= most) return letters.join("");
  const first = Math.floor(most / 3);
  return `${letters.slice(0, first).join("")}…${letters.slice(1 + first - most).join("")}`;
}

/** Say a short sentence to screen readers (and show it in the status line). */
export function speak(text) {
  byId("spoken").textContent = text;
}

/** A file handed to the browser's download. */
export function download(bytes, name, type) {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

export const seconds = (value) =>
  value < 1 ? "under 1 s" : value < 90 ? `${Math.round(value)} s` : value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;

export const millilitres = (value) => `${value.toFixed(value < 10 ? 2 : 1)} ml`;
