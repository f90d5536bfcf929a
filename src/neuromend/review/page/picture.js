/**
 * One NiiVue canvas, without what this page never shows. NiiVue's own ways are made for graphics cards; where there
 * is none (a server, a virtual machine), each thing left out here is a part of a second before a scan is seen.
 */

import { Niivue } from "./vendor/niivue/index.js";

export const CROSSHAIR_MM = 0.6;
const LOOK_MS = 10;
const TINY = [3, 2, 2, 2];

const OPTIONS = {
  isResizeCanvas: true,
  interactive: false,
  dragAndDropEnabled: false,
  isOrientationTextVisible: false,
  show3Dcrosshair: true,
  crosshairWidth: CROSSHAIR_MM,
  crosshairWidthUnit: "mm",
  crosshairGap: 6,
  crosshairColor: [0.35, 0.75, 1, 1],
  backColor: [0.027, 0.035, 0.047, 1],
  loadingText: "",
  logLevel: "error",
};
const MASK_COLOURS = { R: [0, 255], G: [0, 149], B: [0, 64], A: [0, 255], I: [0, 1], labels: ["", "mask"] };

export class Picture extends Niivue {
  /** On a canvas; ready when the promise is. */
  static async on(canvas) {
    const picture = new Picture({ ...OPTIONS });
    picture.meshShaders = []; // there are no meshes
    picture.quiet = true;
    await picture.attachToCanvas(canvas, true);
    picture.quiet = false;
    picture.setDrawColormap(MASK_COLOURS);
    picture.opts.isSliceMM = false;
    picture.withoutGradients();
    return picture;
  }

  /** No font is loaded: letters are the page's own elements. */
  async initText() {}
  drawLoadingText() {}

  /** Hand the volumes to the graphics card. NiiVue would draw as well; the viewer does that, once. */
  updateGLVolume() {
    this.quiet = true;
    super.updateGLVolume();
    this.quiet = false;
  }

  /** Without this the 3-D rendering would go on showing overlays that are gone. */
  dropOverlays() {
    this.overlayTexture = this.rgbaTex(this.overlayTexture, this.gl.TEXTURE2, TINY, true);
    this.overlayTextureID = this.overlayTexture;
  }

  drawScene() {
    return this.quiet ? "" : super.drawScene();
  }

  /** When everything asked of the graphics card so far is drawn; nothing stands still meanwhile. */
  async whenDrawn() {
    const { gl } = this;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    while (gl.getSyncParameter(fence, gl.SYNC_STATUS) === gl.UNSIGNALED) await new Promise((done) => setTimeout(done, LOOK_MS));
    gl.deleteSync(fence);
  }

  /**
   * NiiVue computes gradients for a lighting that is not used here, whenever a volume or its window changes: two
   * drawings of every slice, into two textures as large as the scan's. From the first of them on the volume passes
   * for a tiny one, and a shader that only copies takes the place of those two.
   */
  withoutGradients() {
    const { gl, passThroughShader } = this;
    const copying = {
      ...passThroughShader,
      use: () => {
        passThroughShader.use(gl);
        this.refreshing.dims = TINY;
      },
    };
    this.blurShader = copying;
    this.sobelFirstOrderShader = copying;
  }

  refreshLayers(item, layer) {
    const { dims } = item.hdr;
    this.refreshing = item.hdr;
    super.refreshLayers(item, layer);
    item.hdr.dims = dims;
  }
}
