/** Where things are on the stage: tiles, letters, voxels under the pointer; and how one moves about in the scan. */

import { state, tell } from "./bus.js";
import { make } from "./dom.js";
import { GRID, NAMES } from "./planes.js";
import { SLICE_TYPE } from "./vendor/niivue/index.js";

/**
 * What the viewer is built on. `before` is the NiiVue instance that leads, `stage` the element that holds the
 * canvases, `marks` the one that holds letters; points are [x, y] in CSS pixels of the stage.
 */
export class Navigator {
  /** Letters and names over the tiles, in the page's own type. */
  placeMarks(light) {
    const scale = this.before.uiData.dpr || 1;
    const standing = light ? this.tiles.filter(({ type }) => type === SLICE_TYPE.RENDER) : [];
    this.tiles = (this.covered ? this.after : this.before).screenSlices.map((tile) => ({
      type: tile.axCorSag,
      box: tile.leftTopWidthHeight.map((value) => value / scale),
    }));
    this.tiles.push(...standing);
    const key = JSON.stringify([this.tiles, this.radiological]);
    if (key === this.marksKey) return;
    this.marksKey = key;
    const [left, right] = this.radiological ? ["R", "L"] : ["L", "R"];
    const letters = { 0: [left, right, "A", "P"], 1: [left, right, "S", "I"], 2: ["P", "A", "S", "I"] };
    this.marks.replaceChildren();
    for (const { type, box } of this.tiles) {
      const frame = this.quadrant(type, box);
      const name = make("span", { class: "tile-name" }, NAMES[type]);
      this.place(name, frame[0] + 8, frame[1] + 6);
      this.marks.append(name);
      if (!letters[type]) continue;
      const middle = [box[0] + box[2] / 2, box[1] + box[3] / 2];
      const spots = [[Math.max(box[0], frame[0]) + 6, middle[1]], [box[0] + box[2] - 6, middle[1]], [middle[0], box[1] + 4], [middle[0], box[1] + box[3] - 4]];
      letters[type].forEach((letter, side) => {
        const mark = make("span", { class: `letter side-${side}` }, letter);
        this.place(mark, ...spots[side]);
        this.marks.append(mark);
      });
    }
    tell("tiles", this.tiles);
  }

  /** The whole frame a tile has to itself: a quarter of the stage, or all of it. */
  quadrant(type, box) {
    if (this.view !== "all") return [0, 0, this.stage.clientWidth, this.stage.clientHeight];
    const { position } = GRID.find((tile) => tile.sliceType === type);
    const [width, height] = [this.stage.clientWidth, this.stage.clientHeight];
    return [position[0] * width, position[1] * height, position[2] * width, position[3] * height];
  }

  place(element, x, y) {
    element.style.left = `${x}px`;
    element.style.top = `${y}px`;
  }

  /** The tile under a point of the stage (in CSS pixels): {number, type, box} or null. */
  tileAt(x, y) {
    const number = this.tiles.findIndex(({ box }) => x >= box[0] && x < box[0] + box[2] && y >= box[1] && y < box[1] + box[3]);
    return number < 0 ? null : { number, ...this.tiles[number] };
  }

  /** The voxel [x, y, z] under a point, or null outside the scan and in the 3-D tile. */
  voxelAt(x, y) {
    const frac = this.fracAt(x, y);
    if (!frac) return null;
    const dims = state.scan.volume.dims;
    return dims.map((size, axis) => Math.min(Math.floor(frac[axis] * size), size - 1));
  }

  fracAt(x, y) {
    const tile = this.tileAt(x, y);
    if (!tile || tile.type > SLICE_TYPE.SAGITTAL) return null;
    const scale = this.before.uiData.dpr || 1;
    const frac = this.before.screenXY2TextureFrac(x * scale, y * scale, tile.number);
    return frac[0] < 0 ? null : [...frac];
  }

  /** The voxel under the crosshair. */
  get voxel() {
    const dims = state.scan.volume.dims;
    const { crosshairPos } = this.before.scene;
    return dims.map((size, axis) => Math.max(0, Math.min(Math.floor(crosshairPos[axis] * size), size - 1)));
  }

  setVoxel(voxel) {
    const dims = state.scan.volume.dims;
    const frac = dims.map((size, axis) => (Math.max(0, Math.min(voxel[axis], size - 1)) + 0.5) / size);
    this.before.scene.crosshairPos = Float32Array.from(frac);
    this.redraw();
    tell("crosshair");
  }

  get mm() {
    return [...this.before.frac2mm(this.before.scene.crosshairPos)].slice(0, 3);
  }

  zoom(factor) {
    const pan = [...this.before.scene.pan2Dxyzmm];
    pan[3] = Math.max(0.5, Math.min(12, pan[3] * factor));
    // What the crosshair points at stays where it is.
    const at = this.before.frac2mm(this.before.scene.crosshairPos, 0, false);
    const change = this.before.scene.pan2Dxyzmm[3] - pan[3];
    for (let axis = 0; axis < 3; axis += 1) pan[axis] += at[axis] * change;
    this.before.scene.pan2Dxyzmm = Float32Array.from(pan);
    this.redraw();
  }

  /** Move the planes so that what was under one point of the stage comes under another. */
  pan(from, to) {
    const tile = this.tileAt(...from);
    if (!tile || tile.type > SLICE_TYPE.SAGITTAL) return;
    const scale = this.before.uiData.dpr || 1;
    const [a, b] = [from, to].map(([x, y]) =>
      this.before.frac2mm(this.before.screenXY2TextureFrac(x * scale, y * scale, tile.number, false), 0, false),
    );
    const pan = [...this.before.scene.pan2Dxyzmm];
    for (let axis = 0; axis < 3; axis += 1) pan[axis] += (b[axis] - a[axis]) * pan[3];
    this.before.scene.pan2Dxyzmm = Float32Array.from(pan);
    this.redraw();
  }

  zoom3d(factor) {
    this.before.scene.volScaleMultiplier = Math.max(0.5, Math.min(4, this.before.scene.volScaleMultiplier * factor));
    this.turned = true;
    this.redraw();
  }

  /** How many CSS pixels a millimetre is in a plane's tile. */
  pixelsPerMm(tile) {
    return Math.abs(tile.box[2] / this.before.screenSlices[tile.number].fovMM[0]);
  }

  resetView() {
    this.before.scene.pan2Dxyzmm = Float32Array.from([0, 0, 0, 1]);
    this.before.scene.volScaleMultiplier = 1.35;
    this.before.scene.renderAzimuth = 120;
    this.before.scene.renderElevation = 15;
    this.turned = true;
    this.redraw();
  }

  rotate(dx, dy) {
    this.before.scene.renderAzimuth += dx * 0.5;
    this.before.scene.renderElevation = Math.max(-90, Math.min(90, this.before.scene.renderElevation + dy * 0.5));
    this.turned = true;
    this.redraw();
  }
}
