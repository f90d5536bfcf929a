/**
 * The pictures: two NiiVue canvases, one over the other. The lower one shows "before", the upper one "after";
 * how much of the upper one is seen (all, none, a part of each tile) is a matter of the style sheet, so that
 * comparing needs no drawing. Both follow one crosshair, one window, one mask.
 */

import { tell } from "./bus.js";
import { byId } from "./dom.js";
import { Navigator } from "./navigator.js";
import { GRID, PLANES, PLANES_ONLY } from "./planes.js";
import { CROSSHAIR_MM, Picture } from "./picture.js";
import { Still } from "./still.js";
import { SLICE_TYPE } from "./vendor/niivue/index.js";

/**
 * A drawing that takes longer than this is slow; the 3-D tile is drawn again after so long a rest, or a longer one
 * where it takes longer itself (milliseconds).
 */
const SLOW_MS = 60;
const REST_MS = 250;

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
    this.radiological = false;
    this.pending = false;
  }

  async start() {
    this.before = await Picture.on(byId("before"));
    this.after = null;
    this.afterShown = false;
    this.covered = false;
    this.still = new Still(this.stage, this.marks);
    this.fullDraw = Infinity; // not known yet
    this.fullDraws = 0;
    this.fresh = true; // the 3-D rendering of this scan has not been drawn yet
    this.turned = false; // the 3-D rendering itself has changed: no still picture can stand in for it
    this.tiles = [];
    new ResizeObserver(() => this.redraw()).observe(this.stage);
  }

  /** The canvases there are: the upper one is made with the first result, for it takes its time. */
  get pictures() {
    return this.after ? [this.before, this.after] : [this.before];
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
    this.fresh = true;
    this.setAfterShown(false);
    for (const nv of this.pictures) {
      if (nv.volumes.length === 0) continue;
      nv.closeDrawing();
      nv.volumes = [];
      nv.overlays = [];
      nv.back = null;
      // The large textures go now, not when the next scan comes; tiny ones take their places, as at the start.
      for (const [name, unit] of [["volumeTexture", nv.gl.TEXTURE0], ["gradientTexture", nv.gl.TEXTURE6]]) {
        nv[name] = nv.rgbaTex(nv[name], unit, [2, 2, 2, 2], true);
      }
      nv.dropOverlays();
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
      nv.drawTexture = nv.r8Tex(nv.drawTexture, nv.gl.TEXTURE7, nv.back.dims);
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

  /** Make the upper canvas if there is none yet; to be waited for before `setAfter`. */
  async prepareAfter() {
    this.preparing ??= Picture.on(byId("after"));
    this.after = await this.preparing;
  }

  /** The volume on the upper canvas; null takes it away. */
  setAfter(volume) {
    if (!volume) {
      this.setAfterShown(false);
      if (this.after?.volumes.length > 0) {
        this.after.closeDrawing();
        this.after.dropOverlays();
        this.after.volumes = [];
      }
      return;
    }
    this.load(this.after, volume);
    this.redraw();
  }

  /** `covers`: nothing of the lower canvas is seen, so that its 3-D tile need not be drawn. */
  setAfterShown(shown, covers = false) {
    this.afterShown = shown && this.after?.volumes.length > 0;
    this.covered = this.afterShown && covers;
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
    const canvases = this.pictures.filter((nv) => nv.volumes.length > 0);
    for (const nv of canvases) {
      nv.volumes = [nv.volumes[0], ...this.overlays];
      nv.overlays = this.overlays;
      if (list.length === 0) nv.dropOverlays();
    }
    this.update(canvases);
  }

  setLayer(name, opacity) {
    this.layers[name] = opacity;
    for (const nv of this.pictures) this.style(nv);
    this.redraw();
  }

  style(nv) {
    // A drawing that is quite transparent loses its rim as well: hence never quite zero inside.
    const { outline, tint } = this.layers;
    nv.drawOpacity = outline > 0 || tint > 0 ? Math.max(tint, 0.004) : 0;
    nv.drawRimOpacity = outline > 0 ? outline : -1;
    nv.opts.crosshairWidth = this.crosshairOn ? CROSSHAIR_MM : 0;
    nv.opts.show3Dcrosshair = this.crosshairOn;
    nv.opts.isRadiologicalConvention = this.radiological;
    if (nv.volumes[0]) nv.volumes[0].opacity = this.layers.scan;
  }

  setCrosshairOn(shown) {
    this.crosshairOn = shown;
    for (const nv of this.pictures) this.style(nv);
    this.redraw();
  }

  refreshWindow() {
    this.update(this.pictures.filter((nv) => nv.volumes.length > 0));
  }

  /** Hand changed volumes to the graphics card. */
  update(canvases) {
    for (const nv of canvases) nv.updateGLVolume();
    this.redraw();
  }

  setRadiological(on) {
    this.radiological = on;
    for (const nv of this.pictures) nv.opts.isRadiologicalConvention = on;
    this.redraw();
  }

  setView(view) {
    this.view = view;
    for (const nv of this.pictures) this.lay(nv);
    tell("view", view);
    this.redraw();
  }

  lay(nv) {
    nv.opts.sliceType = this.view === "all" ? SLICE_TYPE.MULTIPLANAR : PLANES[this.view];
    nv.customLayout = this.view === "all" ? GRID : null;
  }

  /** The voxels of a box have changed in the mask: only they go to the graphics card. */
  refreshMask(box) {
    for (const nv of this.pictures) {
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
   * 3-D tile stands still as a picture while the planes change, and is drawn again when they rest. A scan that was
   * opened just now shows its planes first.
   */
  redraw() {
    clearTimeout(this.resting);
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      const slow = this.view === "all" && this.fullDraw > SLOW_MS;
      const light = slow && (this.fresh || (!this.turned && this.still.show()));
      this.turned = false;
      this.draw(light);
      if (light) this.resting = setTimeout(() => this.draw(), this.fresh ? REST_MS : Math.min(Math.max(this.fullDraw, REST_MS), 8 * REST_MS));
    });
  }

  draw(light = false) {
    if (!(this.before?.volumes.length > 0)) return;
    clearTimeout(this.resting);
    for (const nv of this.pictures) nv.customLayout = this.view !== "all" ? null : light || (this.covered && nv === this.before) ? PLANES_ONLY : GRID;
    const top = this.afterShown ? this.after : this.before;
    const begun = performance.now();
    this.drawBoth();
    if (this.fresh) top.whenDrawn().then(() => performance.mark(light ? "planes" : "rendering"));
    if (!light) {
      // Only now and then is the time taken.
      if (this.fresh || this.fullDraws++ % 8 < 2) {
        top.whenDrawn().then(() => {
          this.fullDraw = performance.now() - begun;
        });
      }
      this.fresh = false;
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
  }
}

/** The one viewer of the page. */
export const viewer = new Viewer();
