/** Before and after: one, the other, a wipe through every tile, or flicker. All of it is style; nothing is redrawn. */

import { on, state } from "./bus.js";
import { all, byId, make, press, speak } from "./dom.js";
import { viewer } from "./viewer.js";

const FLICKER_MS = 600;

export const compare = { mode: "before", wipe: 0.5, filled: 1 };
let timer = null;

/** Show "before", "after", "wipe" or "flicker"; what needs a result stays "before" without one. */
export function show(mode) {
  compare.mode = state.result ? mode : "before";
  clearInterval(timer);
  timer = null;
  apply();
  if (compare.mode === "flicker") {
    let after = true;
    timer = setInterval(() => {
      after = !after;
      byId("after").classList.toggle("away", !after);
      label(after);
    }, FLICKER_MS);
  }
  press("compare", compare.mode);
  speak(state.result ? `Showing ${compare.mode}` : "");
}

/** From before to after, or back. */
export const toggle = () => show(compare.mode === "before" ? "after" : "before");

export function setFilled(opacity) {
  compare.filled = opacity;
  apply();
}

export function setWipe(part) {
  compare.wipe = Math.max(0, Math.min(1, part));
  byId("wipe").value = Math.round(compare.wipe * 100);
  clip();
}

function apply() {
  const after = byId("after");
  after.classList.remove("away");
  after.style.opacity = compare.filled;
  viewer.setAfterShown(compare.mode !== "before" && compare.filled > 0, compare.mode === "after" && compare.filled === 1);
  byId("wipe").hidden = compare.mode !== "wipe";
  for (const button of all("[data-compare]")) button.disabled = button.dataset.compare !== "before" && !state.result;
  clip();
  label(compare.mode !== "before");
}

/** Which part of each tile shows "after": right of the wipe's line. */
function clip() {
  const wiping = compare.mode === "wipe" && viewer.afterShown;
  for (const handle of all(".wipe-handle", viewer.stage)) handle.remove();
  const tiles = viewer.tiles ?? [];
  const parts = tiles.map(({ box: [x, y, width, height] }) => {
    const at = x + compare.wipe * width;
    return `M${at} ${y}H${x + width}V${y + height}H${at}Z`;
  });
  byId("after").style.clipPath = wiping && parts.length > 0 ? `path("${parts.join("")}")` : "none";
  if (wiping) tiles.forEach(handle);
}

function handle({ box: [x, y, width, height] }) {
  const line = make("div", { class: "wipe-handle", title: "Drag: before on the left, after on the right" });
  viewer.place(line, x + compare.wipe * width, y);
  line.style.height = `${height}px`;
  line.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    const frame = viewer.stage.getBoundingClientRect();
    const move = (moved) => setWipe((moved.clientX - frame.left - x) / width);
    const end = () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", end);
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", end);
  });
  viewer.stage.append(line);
}

/** The word in the corner that says which of the two is seen. */
function label(after) {
  viewer.stage.dataset.shown = state.result ? (compare.mode === "wipe" ? "before | after" : after ? "after" : "before") : "";
}

export function start() {
  for (const button of all("[data-compare]")) button.addEventListener("click", () => show(button.dataset.compare));
  byId("wipe").addEventListener("input", () => setWipe(Number(byId("wipe").value) / 100));
  on("tiles", clip);
  on("result", () => show(state.result && compare.mode === "before" ? "after" : compare.mode));
}
