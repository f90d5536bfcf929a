/**
 * The mask that is being drawn. An edit is the list of voxels it switched: undoing it and doing it again are the
 * same switch, and no edit costs more memory than the voxels it touched.
 */

import { state, tell } from "./bus.js";
import { widen } from "./morphology.js";
import { viewer } from "./viewer.js";

/** Edits kept, by the number of voxels in all of them together. */
const KEPT_VOXELS = 20_000_000;

export class Mask {
  constructor(volume, id, voxels) {
    this.volume = volume;
    this.id = id; // the server's name for it, or null while it is only drawn here
    this.voxels = voxels ?? new Uint8Array(volume.count);
    this.count = 0;
    for (const value of this.voxels) this.count += value;
    this.done = [];
    this.undone = [];
    this.stroke = null;
    this.dirty = false;
  }

  get ml() {
    return this.count * this.volume.voxelMl;
  }

  /** Set voxels to a value as part of the stroke under way (or as an edit of their own). */
  set(indices, value) {
    const changed = indices.filter((index) => this.voxels[index] !== value);
    if (changed.length === 0) return;
    const own = this.stroke === null;
    if (own) this.begin();
    this.flip(changed);
    for (const index of changed) this.stroke.push(index);
    if (own) this.end();
    else this.changed(changed);
  }

  /** Switch voxels, each 0 to 1 or 1 to 0, as one edit. */
  apply(indices) {
    if (indices.length === 0) return;
    this.flip(indices);
    this.keep(Uint32Array.from(indices));
    this.changed(indices);
  }

  begin() {
    this.stroke = [];
  }

  end() {
    const { stroke } = this;
    this.stroke = null;
    if (!stroke || stroke.length === 0) return;
    this.keep(Uint32Array.from(stroke));
    this.changed(stroke);
  }

  keep(edit) {
    this.done.push(edit);
    this.undone = [];
    this.dirty = true;
    let total = 0;
    for (const one of this.done) total += one.length;
    while (total > KEPT_VOXELS && this.done.length > 1) total -= this.done.shift().length;
  }

  undo() {
    this.again(this.done, this.undone);
  }

  redo() {
    this.again(this.undone, this.done);
  }

  again(from, to) {
    const edit = from.pop();
    if (!edit) return;
    this.flip(edit);
    to.push(edit);
    this.dirty = true;
    this.changed(edit);
  }

  flip(indices) {
    for (const index of indices) {
      this.voxels[index] ^= 1;
      this.count += this.voxels[index] ? 1 : -1;
    }
  }

  /** Show what changed: the box around it, or everything where that is large. */
  changed(indices) {
    const [nx, ny] = this.volume.dims;
    if (indices.length > 500_000) {
      viewer.refreshMask(null);
    } else {
      const box = [Infinity, Infinity, Infinity, -1, -1, -1];
      for (const index of indices) {
        const x = index % nx;
        const row = (index - x) / nx;
        const y = row % ny;
        widen(box, x, y, (row - y) / ny);
      }
      viewer.refreshMask(box);
    }
    tell("mask", this);
  }

  /** The file the server gets and a download gives. */
  file() {
    return this.volume.maskFile(this.voxels);
  }
}

/** The middle of the mask, as a voxel, or null where it is empty. */
export function centre({ voxels, volume, count }) {
  if (count === 0) return null;
  const [nx, ny] = volume.dims;
  const sum = [0, 0, 0];
  for (let index = voxels.indexOf(1); index >= 0; index = voxels.indexOf(1, index + 1)) {
    const x = index % nx;
    const row = (index - x) / nx;
    const y = row % ny;
    sum[0] += x;
    sum[1] += y;
    sum[2] += (row - y) / ny;
  }
  return sum.map((total) => Math.round(total / count));
}

export const currentMask = () => state.scan?.mask ?? null;
