/** Which intensities are black and which are white. */

import { on, state, tell } from "./bus.js";
import { byId } from "./dom.js";
import { viewer } from "./viewer.js";

let automatic = [0, 1];
let waiting = false;

export const windowOf = () => [state.scan.volume.image.cal_min, state.scan.volume.image.cal_max];

/** Set the window of everything that shows the scan's intensities. */
export function setWindow(low, high) {
  if (!state.scan || !Number.isFinite(low) || !Number.isFinite(high) || high <= low) return;
  for (const volume of state.scan.volumes()) volume.setWindow(low, high);
  show();
  tell("window");
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    viewer.refreshWindow();
  });
}

/** The window the scan opens with: its robust range. */
export const autoWindow = () => setWindow(...automatic);

/** Move the level or the width by hundredths of the width. */
export function nudge(level, width) {
  const [low, high] = windowOf();
  const step = (high - low) / 20;
  setWindow(low + (level - width) * step, high + (level + width) * step);
}

function show() {
  const short = (value) => String(Number(value.toPrecision(4)));
  const [low, high] = windowOf();
  byId("window-low").value = short(low);
  byId("window-high").value = short(high);
}

function typed() {
  const [low, high] = [byId("window-low"), byId("window-high")].map((input) => Number(input.value));
  if (high > low) setWindow(low, high);
  else show();
}

export function start() {
  byId("window-low").addEventListener("change", typed);
  byId("window-high").addEventListener("change", typed);
  byId("window-auto").addEventListener("click", autoWindow);
  on("scan", () => {
    if (!state.scan) return;
    automatic = windowOf();
    show();
  });
}
