/**
 * The pictures: two NiiVue canvases, one over the other. The lower one shows "before", the upper one "after";
 * how much of the upper one is seen (all, none, a part of each tile) is a matter of the style sheet, so that
 * comparing needs no drawing. Both follow one crosshair, one window, one mask.
 */

import { Niivue, SLICE_TYPE } from "./vendor/niivue/index.js";
import { byId, make } from "./dom.js";
import { state, tell } from "./bus.js";
import { Still } from "./still.js";

const PLANES = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, render: SLICE_TYPE.RENDER };
const NAMES = { [SLICE_TYPE.AXIAL]: "Axial", [SLICE_TYPE.CORONAL]: "Coronal", [SLICE_TYPE.SAGITTAL]: "Sagittal", [SLICE_TYPE.RENDER]: "3-D" };
const GAP = 0.003;
const HALF = 0.5 - GAP / 2;
const GRID = [
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, HALF, HALF] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0.5 + GAP / 2, 0, HALF, HALF] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0, 0.5 + GAP / 2, HALF, HALF] },
  { sliceType: SLICE_TYPE.RENDER, position: [0.5 + GAP / 2, 0.5 + GAP / 2, HALF, HALF] },
];

const PLANES_ONLY = GRID.slice(0, 3);
/** A drawing that takes longer than this is slow; the 3-D tile is drawn again after so long a rest (milliseconds). */
const SLOW_MS = 60;
const REST_MS = 250;

const OPTIONS = {
  isResizeCanvas: true,
  interactive: false,
  dragAndDropEnabled: false,
  isOrientationTextVisible: false,
  show3Dcrosshair: true,
  crosshairWidth: 0.6,
  crosshairWidthUnit: "mm",
  crosshairGap: 6,
  crosshairColor: [0.35, 0.75, 1, 1],
  backColor: [0.027, 0.035, 0.047, 1],
  loadingText: "",
  logLevel: "error",
};
const MASK_COLOURS = { R: [0, 255], G: [0, 149], B: [0, 64], A: [0, 255], I: [0, 1], labels: ["", "mask"] };

export class Viewer {
  constructor() {
    this.stage = byId("stage");
    this.marks = byId("marks");
    this.view = "all";
    this.layers = { outline: 1, tint: 0.25, scan: 1 };
    this.overlays = [];
    this.mask = null;
    this.crosshairOn = true;
    this.pending = false;
  }

  async start() {
    this.before = await this.canvas("before");
    this.after = await this.canvas("after");
    this.afterShown = false;
    this.still = new Still(this.stage, this.marks);
    this.fullDraw = 0;
    this.fullDraws = 0;
    this.lastDraw = 0;
    this.tiles = [];
    new ResizeObserver(() => this.redraw()).observe(this.stage);
  }

  async canvas(id) {
    const nv = new Niivue({ ...OPTIONS });
    await nv.attachToCanvas(byId(id), true);
    nv.setDrawColormap(MASK_COLOURS);
    // NiiVue computes gradients for a lighting that is not used here, whenever the window changes; that takes
    // seconds without a graphics card. A shader that only copies takes the place of those two.
    nv.blurShader = nv.passThroughShader;
    nv.sobelFirstOrderShader = nv.passThroughShader;
    nv.opts.isSliceMM = false;
    return nv;
  }

  /** Show another scan: everything of the former one is let go first. */
  showScan(volume, mask) {
    this.clear();
    this.mask = mask;
    this.load(this.before, volume);
    this.resetView();
  }

  clear() {
    this.overlays = [];
    this.mask = null;
    this.still.forget();
    this.setAfterShown(false);
    for (const nv of [this.before, this.after]) {
      if (nv.volumes.length === 0) continue;
      nv.closeDrawing();
      nv.volumes = [];
      nv.overlays = [];
      nv.back = null;
      // The large textures go now, not when the next scan comes.
      for (const name of ["volumeTexture", "gradientTexture", "overlayTexture"]) {
        if (nv[name]) nv.gl.deleteTexture(nv[name]);
        nv[name] = null;
      }
      nv.overlayTextureID = null;
    }
    this.marks.replaceChildren();
    this.tiles = [];
  }

  /** Put a volume under the overlays of one canvas, with the mask. */
  load(nv, volume) {
    const fresh = nv.volumes.length === 0;
    nv.volumes = [volume.image, ...this.overlays];
    nv.back = volume.image;
    nv.overlays = this.overlays;
    nv.volumes[0].opacity = this.layers.scan;
    if (fresh || !nv.drawBitmap) {
      nv.updateGLVolume();
      nv.drawBitmap = this.mask;
      nv.drawTexture = nv.r8Tex(nv.drawTexture, nv.gl.TEXTURE7, nv.back.dims, true);
      nv.refreshDrawing(false);
    } else {
      nv.updateGLVolume();
    }
    this.style(nv);
    this.lay(nv);
  }

  setBefore(volume) {
    this.load(this.before, volume);
    this.redraw();
  }

  /** The volume on the upper canvas; null takes it away. */
  setAfter(volume) {
    if (!volume) {
      this.setAfterShown(false);
      if (this.after.volumes.length > 0) {
        this.after.closeDrawing();
        this.after.volumes = [];
      }
      return;
    }
    this.load(this.after, volume);
    this.redraw();
  }

  setAfterShown(shown) {
    this.afterShown = shown && this.after.volumes.length > 0;
    byId("after").hidden = !this.afterShown;
    if (this.afterShown) this.after.resizeListener();
    this.redraw();
  }

  /** Overlays over both canvases: [{volume, opacity}], lowest first. */
  setOverlays(list) {
    this.overlays = list.map(({ volume, opacity }) => {
      volume.image.opacity = opacity;
      return volume.image;
    });
    for (const nv of [this.before, this.after]) {
      if (nv.volumes.length === 0) continue;
      nv.volumes = [nv.volumes[0], ...this.overlays];
      nv.overlays = this.overlays;
      nv.updateGLVolume();
    }
  }

  setLayer(name, opacity) {
    this.layers[name] = opacity;
    for (const nv of [this.before, this.after]) this.style(nv);
    this.redraw();
  }

  style(nv) {
    // A drawing that is quite transparent loses its rim as well: hence never quite zero inside.
    const { outline, tint } = this.layers;
    nv.drawOpacity = outline > 0 || tint > 0 ? Math.max(tint, 0.004) : 0;
    nv.drawRimOpacity = outline > 0 ? outline : -1;
    nv.opts.crosshairWidth = this.crosshairOn ? OPTIONS.crosshairWidth : 0;
    nv.opts.show3Dcrosshair = this.crosshairOn;
    if (nv.volumes[0]) nv.volumes[0].opacity = this.layers.scan;
  }

  setCrosshairOn(shown) {
    this.crosshairOn = shown;
    for (const nv of [this.before, this.after]) this.style(nv);
    this.redraw();
  }

  refreshWindow() {
    for (const nv of [this.before, this.after]) if (nv.volumes.length > 0) nv.updateGLVolume();
  }

  setRadiological(on) {
    this.radiological = on;
    for (const nv of [this.before, this.after]) nv.opts.isRadiologicalConvention = on;
    this.redraw();
  }

  setView(view) {
    this.view = view;
    for (const nv of [this.before, this.after]) this.lay(nv);
    tell("view", view);
    this.redraw();
  }

  lay(nv) {
    nv.opts.sliceType = this.view === "all" ? SLICE_TYPE.MULTIPLANAR : PLANES[this.view];
    nv.customLayout = this.view === "all" ? GRID : null;
  }

  /** The voxels of a box have changed in the mask: only they go to the graphics card. */
  refreshMask(box) {
    for (const nv of [this.before, this.after]) {
      if (nv.volumes.length === 0 || !nv.drawTexture) continue;
      if (!box) {
        nv.drawBitmap = this.mask;
        nv.refreshDrawing(false);
      } else {
        this.uploadBox(nv, box);
      }
    }
    this.redraw();
  }

  uploadBox(nv, [x0, y0, z0, x1, y1, z1]) {
    const { gl } = nv;
    const [, nx, ny] = nv.back.dims;
    gl.activeTexture(gl.TEXTURE7);
    gl.bindTexture(gl.TEXTURE_3D, nv.drawTexture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, nx);
    gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, ny);
    const first = x0 + nx * (y0 + ny * z0);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, x0, y0, z0, x1 - x0 + 1, y1 - y0 + 1, z1 - z0 + 1, gl.RED, gl.UNSIGNED_BYTE, this.mask.subarray(first));
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, 0);
    gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, 0);
  }

  /**
   * Draw once before the next frame, however often this is called. Where drawing is slow (no graphics card), the
   * 3-D tile stands still as a picture while the planes change, and is drawn again when they rest.
   */
  redraw() {
    clearTimeout(this.resting);
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      const slow = this.view === "all" && this.fullDraw > SLOW_MS && performance.now() - this.lastDraw < REST_MS + this.fullDraw;
      this.draw(slow && this.still.show());
      if (slow) this.resting = setTimeout(() => this.draw(), REST_MS);
    });
  }

  draw(light = false) {
    if (this.before.volumes.length === 0) return;
    // Only now and then is the time taken: for that the page must wait until the picture is there.
    const timed = !light && this.fullDraws++ % 8 < 2;
    const begun = performance.now();
    for (const nv of [this.before, this.after]) nv.customLayout = this.view !== "all" ? null : light ? PLANES_ONLY : GRID;
    this.drawBoth();
    this.lastDraw = performance.now();
    if (!light) {
      const top = this.afterShown ? this.after : this.before;
      if (timed) {
        top.gl.readPixels(0, 0, 1, 1, top.gl.RGBA, top.gl.UNSIGNED_BYTE, new Uint8Array(4));
        this.fullDraw = performance.now() - begun;
      }
      this.still.take(top, this.fullDraw > SLOW_MS && this.view === "all" ? top.screenSlices.at(-1) : null);
    }
    this.placeMarks(light);
    tell("drawn");
  }

  drawBoth() {
    this.before.drawScene();
    if (this.afterShown) {
      const { scene } = this.before;
      Object.assign(this.after.scene, { crosshairPos: scene.crosshairPos, pan2Dxyzmm: scene.pan2Dxyzmm, volScaleMultiplier: scene.volScaleMultiplier });
      this.after.scene.renderAzimuth = scene.renderAzimuth;
      this.after.scene.renderElevation = scene.renderElevation;
      this.after.drawScene();
    }
    this.placeMarks();
    tell("drawn");
  }

  /** Letters and names over the tiles, in the page's own type. */
  placeMarks(light) {
    const scale = this.before.uiData.dpr || 1;
    const standing = light ? this.tiles.filter(({ type }) => type === SLICE_TYPE.RENDER) : [];
    this.tiles = this.before.screenSlices.map((tile) => ({
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
    this.redraw();
  }

  rotate(dx, dy) {
    this.before.scene.renderAzimuth += dx * 0.5;
    this.before.scene.renderElevation = Math.max(-90, Math.min(90, this.before.scene.renderElevation + dy * 0.5));
    this.redraw();
  }
}

/** The one viewer of the page. */
export const viewer = new Viewer();
