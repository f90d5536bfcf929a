/** A picture of the 3-D tile that stands in for it while the planes change, where drawing is slow. */

import { make } from "./dom.js";

export class Still {
  constructor(stage, above) {
    this.canvas = make("canvas", { class: "still", hidden: true });
    stage.insertBefore(this.canvas, above);
    this.box = null;
  }

  /** Copy the 3-D tile of a NiiVue canvas that was drawn just now; `tile` is its place in canvas pixels. */
  take(nv, tile) {
    this.canvas.hidden = true;
    this.box = tile ? tile.leftTopWidthHeight.map(Math.round) : null;
    if (!this.box) return;
    const [x, y, width, height] = this.box;
    const scale = nv.uiData.dpr || 1;
    Object.assign(this.canvas, { width, height });
    Object.assign(this.canvas.style, { left: `${x / scale}px`, top: `${y / scale}px`, width: `${width / scale}px`, height: `${height / scale}px` });
    this.canvas.getContext("2d").drawImage(nv.canvas, x, y, width, height, 0, 0, width, height);
  }

  /** Show the copy; false where there is none. */
  show() {
    this.canvas.hidden = this.box === null;
    return this.box !== null;
  }

  forget() {
    this.box = null;
    this.canvas.hidden = true;
  }
}
