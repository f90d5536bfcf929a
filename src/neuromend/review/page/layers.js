/** The layers: which are seen and how strongly. Uncertainty and difference are fetched or made when first shown. */

import { on, state } from "./bus.js";
import { setFilled } from "./compare.js";
import { byId, make } from "./dom.js";
import { attempt } from "./notices.js";
import { bar, coloursOf, setRange } from "./scales.js";
import { viewer } from "./viewer.js";
import { difference, fetchVolume } from "./volume.js";

export const layers = {
  scan: { name: "Scan", shown: true, opacity: 1 },
  filled: { name: "Filled", shown: true, opacity: 1, needs: () => state.result },
  outline: { name: "Mask outline", shown: true, opacity: 1 },
  tint: { name: "Mask tint", shown: true, opacity: 0.2 },
  uncertainty: { name: "Uncertainty", shown: false, opacity: 0.7, needs: () => state.result?.files.uncertainty },
  difference: { name: "Difference", shown: false, opacity: 0.7, needs: () => state.result },
};
const OVERLAYS = ["uncertainty", "difference"];
let asked = 0;

export function toggle(name) {
  const layer = layers[name];
  if (layer.needs && !layer.needs()) return;
  layer.shown = !layer.shown;
  if (layer.shown && OVERLAYS.includes(name)) alone(name);
  apply(name);
}

/** Two scales of colours over each other could not be read. */
function alone(name) {
  for (const other of OVERLAYS) layers[other].shown = other === name;
}

function setOpacity(name, opacity) {
  layers[name].opacity = opacity;
  apply(name);
}

function apply(name) {
  const layer = layers[name];
  const opacity = layer.shown ? layer.opacity : 0;
  if (name === "filled") setFilled(opacity);
  else if (OVERLAYS.includes(name)) attempt(showOverlays);
  else viewer.setLayer(name, opacity);
  refresh();
}

/** Put the overlays that are shown over the pictures, fetching what is not there yet. */
async function showOverlays() {
  const mine = ++asked;
  if (!state.scan) return;
  const { overlays } = state.scan;
  const list = [];
  for (const name of OVERLAYS) {
    const layer = layers[name];
    if (!layer.shown || !layer.needs()) continue;
    overlays[name] ??= setRange(name, await overlay(name));
    if (mine !== asked) return;
    list.push({ volume: overlays[name], opacity: layer.opacity });
  }
  if (list.length > 0 || viewer.overlays.length > 0) viewer.setOverlays(list);
}

function overlay(name) {
  const { scan, result } = state;
  if (name === "uncertainty") return fetchVolume(result.files.uncertainty, coloursOf(name));
  return difference(scan.volume, scan.after, coloursOf(name));
}

function refresh() {
  for (const [name, layer] of Object.entries(layers)) {
    const row = byId(`layer-${name}`);
    const usable = !layer.needs || Boolean(layer.needs());
    row.classList.toggle("off", !usable);
    const [box] = row.getElementsByTagName("input");
    box.checked = layer.shown && usable;
    for (const input of row.getElementsByTagName("input")) input.disabled = !usable;
  }
}

function row(name, layer) {
  const box = make("input", { type: "checkbox", id: `show-${name}`, onchange: () => toggle(name) });
  const slider = make("input", {
    type: "range",
    min: "0",
    max: "100",
    "aria-label": `Opacity of ${layer.name}`,
    oninput: () => setOpacity(name, Number(slider.value) / 100),
  });
  slider.value = layer.opacity * 100;
  return make("div", { class: "layer", id: `layer-${name}` }, box, make("label", { htmlFor: `show-${name}` }, make("i", { class: `swatch ${name}` }), layer.name), slider, OVERLAYS.includes(name) ? bar(name) : null);
}

export function start() {
  byId("layers").append(...Object.entries(layers).map(([name, layer]) => row(name, layer)));
  for (const name of ["scan", "outline", "tint"]) viewer.setLayer(name, layers[name].opacity);
  on("result", () => {
    if (state.scan) state.scan.overlays = {};
    refresh();
    attempt(showOverlays);
  });
  on("scan", refresh);
  refresh();
}
