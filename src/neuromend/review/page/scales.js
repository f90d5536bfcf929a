/**
 * The colours of the overlays, and the bar below each that says what they mean: numbers in the scan's own
 * intensities, as a share of the grey window too, and the one at the crosshair.
 */

import { on, state } from "./bus.js";
import { byId, make } from "./dom.js";
import { cmapper } from "./vendor/niivue/index.js";
import { viewer } from "./viewer.js";
import { windowOf } from "./windowing.js";

/** Of the voxels that are not zero, this share lies within the colours; a few odd ones do not make the rest pale. */
const WITHIN = 0.99;
const STEPS = 256;

/** `from`: the part of the range, next to zero, that stays without colour. */
const SCALES = {
  uncertainty: { colormap: "inferno", colormapNegative: "", from: 1e-3, what: "Standard deviation of the samples" },
  difference: { colormap: "warm", colormapNegative: "winter", from: 0.04, what: "Filled minus scan" },
};

/** The colours of an overlay, as options for reading its volume. */
export function coloursOf(name) {
  const { colormap, colormapNegative } = SCALES[name];
  return { colormap, colormapNegative };
}

/** Spread the colours of an overlay over the values that it has. */
export function setRange(name, volume) {
  const limit = volume.limit(WITHIN);
  volume.isZero = limit === 0;
  volume.setWindow(SCALES[name].from * (limit || 1), limit || 1);
  return volume;
}

/** The bar of an overlay: colours, three numbers below them, and a line of words. */
export function bar(name) {
  const canvas = make("canvas", { width: STEPS, height: 1, "aria-hidden": "true" });
  paint(canvas, SCALES[name]);
  return make("figure", { class: "scale", id: `scale-${name}`, hidden: true }, canvas, make("div", { class: "marks-below" }, make("span"), make("span"), make("span")), make("figcaption"));
}

function paint(canvas, { colormap, colormapNegative, from }) {
  const [above, below] = [colormap, colormapNegative].map((colours) => cmapper.colormap(colours || colormap));
  const pixels = new ImageData(STEPS, 1);
  for (let x = 0; x < STEPS; x += 1) {
    const part = (x + 0.5) / STEPS;
    const value = colormapNegative ? 2 * part - 1 : part;
    const share = (Math.abs(value) - from) / (1 - from);
    if (share < 0) continue;
    const colours = value < 0 ? below : above;
    const at = 4 * Math.round(255 * share);
    pixels.data.set([colours[at], colours[at + 1], colours[at + 2], 255], 4 * x);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const number = (value, digits = 3) => String(Number(value.toPrecision(digits))).replace("-", "−");

/** Show the numbers of the overlays that are seen; hide the bars of the others. */
function refreshBars() {
  for (const name of Object.keys(SCALES)) {
    const volume = state.scan?.overlays[name];
    const shown = Boolean(volume) && viewer.overlays.includes(volume.image);
    byId(`scale-${name}`).hidden = !shown;
    if (shown) label(name, volume);
  }
}

function label(name, volume) {
  const { colormapNegative, what } = SCALES[name];
  const figure = byId(`scale-${name}`);
  if (volume.isZero) {
    for (const mark of figure.getElementsByTagName("span")) mark.textContent = "";
    figure.lastChild.textContent = `${what}: zero everywhere.`;
    return;
  }
  const high = volume.image.cal_max;
  const [black, white] = windowOf();
  const marks = colormapNegative ? [`−${number(high)} or less`, "0", `${number(high)} or more`] : ["0", number(high / 2), `${number(high)} or more`];
  [...figure.getElementsByTagName("span")].forEach((mark, place) => (mark.textContent = marks[place]));
  const share = `${number(high)} is ${number((100 * high) / (white - black), 2)} % of the grey window`;
  figure.lastChild.textContent = `${what}, in the scan's intensities; ${share}. At the crosshair: ${number(volume.intensity(viewer.voxel))}.`;
}

export function start() {
  for (const event of ["drawn", "window", "result", "scan"]) on(event, refreshBars);
}
