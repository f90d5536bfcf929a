/**
 * The pictures: two NiiVue canvases, one over the other. The lower one shows "before", the upper one "after";
 * how much of the upper one is seen (all, none, a part of each tile) is a matter of the style sheet, so that
 * comparing needs no drawing. Both follow one crosshair, one window, one mask.
 */

import { tell } from "./bus.js";
import { byId } from "./dom.js";
import { Navigator } from "./navigator.js";
import { GRID, PLANES, PLANES_ONLY } from "./planes.js";
import { Still } from "./still.js";
import { Niivue, SLICE_TYPE } from "./vendor/niivue/index.js";

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

export class Viewer extends Navigator {
  constructor() {
    super();
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
    this.turned = false; // the 3-D rendering itself has changed: no still picture can stand in for it
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
      // The large textures go now, not when the next scan comes; tiny ones take their places, as at the start.
      for (const [name, unit] of [["volumeTexture", nv.gl.TEXTURE0], ["overlayTexture", nv.gl.TEXTURE2], ["gradientTexture", nv.gl.TEXTURE6]]) {
        nv[name] = nv.rgbaTex(nv[name], unit, [2, 2, 2, 2], true);
      }
      nv.overlayTextureID = nv.overlayTexture;
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
    const canvases = [this.before, this.after].filter((nv) => nv.volumes.length > 0);
    for (const nv of canvases) {
      nv.volumes = [nv.volumes[0], ...this.overlays];
      nv.overlays = this.overlays;
    }
    this.update(canvases);
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
    this.update([this.before, this.after].filter((nv) => nv.volumes.length > 0));
  }

  /** Hand changed volumes to the graphics card (NiiVue draws then; where that is slow, only the planes). */
  update(canvases) {
    if (this.view === "all" && this.fullDraw > SLOW_MS && this.still.show()) for (const nv of canvases) nv.customLayout = PLANES_ONLY;
    for (const nv of canvases) nv.updateGLVolume();
    this.redraw();
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
      const slow = this.view === "all" && this.fullDraw > SLOW_MS && !this.turned;
      this.turned = false;
      const light = slow && this.still.show();
      this.draw(light);
      if (light) this.resting = setTimeout(() => this.draw(), REST_MS);
    });
  }

  draw(light = false) {
    if (this.before.volumes.length === 0) return;
    // Only now and then is the time taken: for that the page must wait until the picture is there.
    const timed = !light && this.fullDraws++ % 8 < 2;
    const begun = performance.now();
    clearTimeout(this.resting);
    for (const nv of [this.before, this.after]) nv.customLayout = this.view !== "all" ? null : light ? PLANES_ONLY : GRID;
    this.drawBoth();
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
}

/** The one viewer of the page. */
export const viewer = new Viewer();
