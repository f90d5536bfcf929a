/** What the page says when something is wrong or done, and what it asks before anything is lost. */

import { byId, make, speak } from "./dom.js";

const SHOWN_MS = 6000;

/** A short message that goes away by itself. */
export function say(text) {
  speak(text);
  const notice = make("div", { class: "notice" }, make("p", {}, text));
  byId("notices").append(notice);
  setTimeout(() => notice.remove(), SHOWN_MS);
}

/** An error in plain words: what happened, why, what to do. It stays until it is closed. */
export function complain(error) {
  if (!("what" in error)) {
    console.error(error);
    error = { code: "", what: "The page could not do this.", why: error.message, fix: "Reload the page; keep the mask first, if it is drawn." };
  }
  const same = [...byId("notices").children].find((notice) => notice.dataset.what === error.what);
  same?.remove();
  const notice = make(
    "div",
    { class: "notice error", role: "alert" },
    make("p", { class: "what" }, error.code ? make("code", {}, error.code) : null, error.what),
    error.why ? make("p", {}, error.why) : null,
    error.fix ? make("p", { class: "fix" }, make("strong", {}, "What to do: "), error.fix) : null,
    make("button", { type: "button", "aria-label": "Close this message", onclick: () => notice.remove() }, "×"),
  );
  notice.dataset.what = error.what;
  byId("notices").append(notice);
}

/** Run something for a control; what it throws is shown. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    complain(error);
    return undefined;
  }
}

/**
 * A question with buttons [{value, text, primary?}]; gives the value of the one pressed, or null for Esc. It waits
 * for the answer to a question that stands already.
 */
let asking = Promise.resolve();

export function question(title, text, buttons) {
  const mine = asking.then(() => open(title, text, buttons));
  asking = mine;
  return mine;
}

function open(title, text, buttons) {
  const dialog = byId("dialog");
  return new Promise((answer) => {
    const row = buttons.map(({ value, text: label, primary }) =>
      make("button", { type: "button", class: primary ? "primary" : "", onclick: () => dialog.close(value) }, label),
    );
    dialog.replaceChildren(make("h2", { id: "dialog-title" }, title), make("p", {}, text), make("div", { class: "row" }, ...row));
    dialog.returnValue = "";
    dialog.addEventListener("close", () => answer(dialog.returnValue || null), { once: true });
    dialog.showModal();
    (row.find((button) => button.className === "primary") ?? row[0]).focus();
  });
}
