/** Mouse, pen and wheel on the pictures. */

import { state, tell } from "./bus.js";
import { currentMask } from "./mask.js";
import { brushCursor, brushSize, fillOutline, Stroke, takeRegion, tools } from "./tools.js";
import { attempt } from "./notices.js";
import { viewer } from "./viewer.js";
import { setWindow, windowOf } from "./windowing.js";

const RENDER = 4;
const VIEW_OF = ["axial", "coronal", "sagittal", null, "render"];
let drag = null;
let cursor = null;

/** What a button pressed at a place begins: {move(point, last), end?()} or null. */
function begin(event, at) {
  const tile = viewer.tileAt(...at);
  if (!tile) return null;
  if (event.button === 2) return windowing(at);
  if (event.button === 1 || (event.button === 0 && event.shiftKey)) return { move: (point, last) => viewer.pan(last, point) };
  if (event.button !== 0) return null;
  if (tile.type === RENDER) return { move: (point, last) => viewer.rotate(point[0] - last[0], point[1] - last[1]) };
  const voxel = viewer.voxelAt(...at);
  if (!voxel) return null;
  return (
    { brush: () => stroke(tile, voxel, event.altKey ? 0 : 1), erase: () => stroke(tile, voxel, 0), outline: () => once(() => fillOutline(voxel, tile.type)), region: () => once(() => takeRegion(voxel, event.altKey ? 0 : 1)) }[tools.current] ?? (() => crosshair(voxel))
  )();
}

function once(work) {
  attempt(async () => work());
  return { move: () => {} };
}

function crosshair(voxel) {
  viewer.setVoxel(voxel);
  return {
    move(point) {
      const there = viewer.voxelAt(...point);
      if (there) viewer.setVoxel(there);
    },
  };
}

function stroke(tile, voxel, value) {
  if (!currentMask()) return null;
  const line = new Stroke(tile.type, value);
  line.to(voxel);
  return {
    move(point) {
      const there = viewer.tileAt(...point)?.number === tile.number ? viewer.voxelAt(...point) : null;
      if (there) line.to(there);
      else line.last = null;
    },
    end: () => line.end(),
  };
}

/** Right drag: sideways the width of the window, up and down its level. */
function windowing(at) {
  const [low, high] = windowOf();
  const step = (high - low) / 250;
  return {
    move(point) {
      const width = Math.max((high - low) + (point[0] - at[0]) * step * 2, step);
      const level = (low + high) / 2 + (point[1] - at[1]) * step;
      setWindow(level - width / 2, level + width / 2);
    },
  };
}

function place(event) {
  const frame = viewer.stage.getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
}

function down(event) {
  if (!state.scan || event.target.closest(".wipe-handle")) return;
  const at = place(event);
  drag = begin(event, at);
  if (!drag) return;
  drag.last = at;
  viewer.stage.setPointerCapture(event.pointerId);
  viewer.stage.focus({ preventScroll: true });
  event.preventDefault();
}

function move(event) {
  showCursor(event);
  if (!drag) return;
  // A fast pen sends several points between two frames: none is lost.
  const events = event.getCoalescedEvents?.() ?? [];
  for (const one of events.length > 0 ? events : [event]) {
    const at = place(one);
    drag.move(at, drag.last);
    drag.last = at;
  }
}

function up() {
  drag?.end?.();
  drag = null;
}

function wheel(event) {
  if (!state.scan) return;
  event.preventDefault();
  const tile = viewer.tileAt(...place(event));
  if (event.ctrlKey || event.metaKey || tile?.type === RENDER) {
    if (tile?.type === RENDER) viewer.zoom3d(event.deltaY < 0 ? 1.1 : 1 / 1.1);
    else viewer.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    return;
  }
  if (!tile) return;
  const voxel = viewer.voxel;
  voxel[2 - tile.type] += Math.sign(-event.deltaY);
  viewer.setVoxel(voxel);
}

function showCursor(event) {
  const painting = tools.current === "brush" || tools.current === "erase";
  const at = place(event);
  const tile = painting && state.scan ? viewer.tileAt(...at) : null;
  cursor.hidden = !tile || tile.type === RENDER;
  if (cursor.hidden) return;
  const size = brushSize() * viewer.pixelsPerMm(tile);
  Object.assign(cursor.style, { left: `${at[0]}px`, top: `${at[1]}px`, width: `${size}px`, height: `${size}px` });
}

export function start() {
  const { stage } = viewer;
  cursor = brushCursor();
  stage.append(cursor);
  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerup", up);
  stage.addEventListener("pointercancel", up);
  stage.addEventListener("pointerleave", () => (cursor.hidden = true));
  stage.addEventListener("wheel", wheel, { passive: false });
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("dblclick", (event) => {
    const tile = viewer.tileAt(...place(event));
    if (tile && tools.current === "navigate") viewer.setView(viewer.view === "all" ? VIEW_OF[tile.type] : "all");
    tell("view", viewer.view);
  });
}
