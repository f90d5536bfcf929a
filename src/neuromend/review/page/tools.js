/** The drawing tools: what a click or a stroke on a plane does to the mask, and the controls beside it. */

import { on, state, tell } from "./bus.js";
import { all, byId, make, millilitres, press } from "./dom.js";
import { ball, enclosed, grown, region } from "./morphology.js";
import { currentMask } from "./mask.js";
import { attempt, say } from "./notices.js";
import { viewer } from "./viewer.js";

export const tools = { current: "navigate" };

/** The axis across each plane: NiiVue's axial, coronal, sagittal. */
const ACROSS = [2, 1, 0];

const HINTS = {
  navigate: "",
  brush: "Drag to draw; Alt erases; [ and ] change the size",
  erase: "Drag to erase; [ and ] change the size",
  outline: "Click inside a closed outline to fill it in, on this slice",
  region: "Click to add what is joined to the point and like it; Alt takes it away",
};

export function choose(tool) {
  tools.current = tool;
  press("tool", tool);
  byId("brush-options").hidden = tool !== "brush" && tool !== "erase";
  byId("region-options").hidden = tool !== "region";
  byId("hint").textContent = HINTS[tool];
  viewer.stage.dataset.tool = tool;
  tell("tool", tool);
}

export const brushSize = () => Number(byId("brush-size").value);

export function setBrush(size) {
  byId("brush-size").value = size;
  byId("brush-size-text").textContent = `${brushSize()} mm`;
  tell("tool", tools.current);
}

/** One stroke of brush or eraser: between two points there is a dab every half radius. */
export class Stroke {
  constructor(plane, value) {
    const { dims, spacing } = state.scan.volume;
    this.dims = dims;
    this.value = value;
    this.steps = ball(brushSize() / 2, spacing, byId("brush-ball").checked ? -1 : ACROSS[plane]);
    this.stride = Math.max(0.5, brushSize() / 4 / Math.min(...spacing));
    this.last = null;
    currentMask().begin();
  }

  to(voxel) {
    const from = this.last ?? voxel;
    const length = Math.hypot(...voxel.map((value, axis) => value - from[axis]));
    const dabs = Math.max(1, Math.ceil(length / this.stride));
    const indices = new Set();
    for (let dab = 1; dab <= dabs; dab += 1) this.dab(voxel.map((value, axis) => Math.round(from[axis] + ((value - from[axis]) * dab) / dabs)), indices);
    this.last = voxel;
    currentMask().set([...indices], this.value);
  }

  dab([x, y, z], indices) {
    const [nx, ny, nz] = this.dims;
    for (const [dx, dy, dz] of this.steps) {
      const [a, b, c] = [x + dx, y + dy, z + dz];
      if (a >= 0 && b >= 0 && c >= 0 && a < nx && b < ny && c < nz) indices.add(a + nx * (b + ny * c));
    }
  }

  end() {
    currentMask().end();
  }
}

/** Fill in the closed outline around a voxel of a plane. */
export function fillOutline(voxel, plane) {
  const mask = currentMask();
  const inside = enclosed(mask.voxels, voxel, mask.volume, ACROSS[plane]);
  if (inside) mask.set(inside, 1);
  else say("There is no closed outline around this point on this slice.");
}

/** Add (or take away) what is joined to a voxel and alike. */
export function takeRegion(voxel, value) {
  const mask = currentMask();
  const { volume } = state.scan;
  const tolerance = regionTolerance() / volume.slope;
  const voxels = region(voxel, volume, (x, y, z) => volume.raw(x, y, z), Math.abs(tolerance), Number(byId("region-radius").value));
  mask.set(voxels, value);
}

/** The tolerance in the scan's units: a percentage of the width of the window. */
function regionTolerance() {
  const { image } = state.scan.volume;
  return (Number(byId("region-tolerance").value) / 100) * (image.cal_max - image.cal_min);
}

/** Grow (sign 1) or shrink (sign -1) the mask by the millimetres in the box. */
export function growMask(sign) {
  const mask = currentMask();
  if (!mask) return;
  const mm = Number(byId("step-mm").value);
  if (!(mm > 0 && mm <= 20)) {
    say("Grow and shrink take between 0.5 and 20 mm.");
    return;
  }
  const switched = grown(mask.voxels, mask.volume, mm, sign);
  if (sign < 0 && switched.length === mask.count && mask.count > 0) {
    say(`Shrinking by ${mm} mm would leave nothing: the mask stays as it is.`);
    return;
  }
  mask.apply(switched);
}

/** Take everything out of the mask; undo brings it back. */
export function clearMask() {
  const mask = currentMask();
  if (!mask || mask.count === 0) return;
  const voxels = [];
  for (let index = mask.voxels.indexOf(1); index >= 0; index = mask.voxels.indexOf(1, index + 1)) voxels.push(index);
  mask.apply(voxels);
}

function showMask(mask) {
  byId("volume").textContent = millilitres(mask?.ml ?? 0);
  byId("undo").disabled = !mask?.done.length;
  byId("redo").disabled = !mask?.undone.length;
  byId("clear").disabled = byId("grow").disabled = byId("shrink").disabled = !mask?.count;
  byId("mask-keep").disabled = !mask?.dirty || !mask.count;
  byId("mask-download").disabled = !mask?.count;
  byId("mask-keep").classList.toggle("attention", Boolean(mask?.dirty && mask.count));
}

function showRegion() {
  byId("region-radius-text").textContent = `${byId("region-radius").value} mm`;
  const percent = byId("region-tolerance").value;
  byId("region-tolerance-text").textContent = state.scan ? `± ${Number(regionTolerance().toPrecision(3))}` : `${percent} %`;
}

export function start() {
  for (const button of all("[data-tool]")) button.addEventListener("click", () => choose(button.dataset.tool));
  byId("brush-size").addEventListener("input", () => setBrush(brushSize()));
  for (const id of ["region-tolerance", "region-radius"]) byId(id).addEventListener("input", showRegion);
  byId("undo").addEventListener("click", () => currentMask()?.undo());
  byId("redo").addEventListener("click", () => currentMask()?.redo());
  byId("clear").addEventListener("click", clearMask);
  byId("grow").addEventListener("click", () => attempt(async () => growMask(1)));
  byId("shrink").addEventListener("click", () => attempt(async () => growMask(-1)));
  on("mask", showMask);
  on("scan", () => {
    showMask(currentMask());
    showRegion();
  });
  on("window", showRegion);
  choose("navigate");
  setBrush(8);
}

/** The circle that shows how large the brush is, in the stage's pixels a millimetre of a tile. */
export function brushCursor() {
  return make("div", { class: "brush-cursor", hidden: true });
}
