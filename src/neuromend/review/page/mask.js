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
    this.asKept = null; // the last edit that the server's copy holds
  }

  /** Does it hold something that the server does not have? */
  get dirty() {
    return (this.done.at(-1) ?? null) !== this.asKept;
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
    let total = 0;
    for (const one of this.done) total += one.length;
    while (total > KEPT_VOXELS && this.done.length > 1) {
      const dropped = this.done.shift();
      total -= dropped.length;
      if (this.asKept === null) this.asKept = undefined; // there is no way back to it any more
      if (this.asKept === dropped) this.asKept = null;
    }
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

/**
 * A voxel of the mask to look at first, or null where it is empty: on the axial slice that holds the most of it, the
 * one nearest to the middle of what lies there.
 */
export function centre({ voxels, volume, count }) {
  if (count === 0) return null;
  const [nx, ny, nz] = volume.dims;
  const slice = (z) => voxels.subarray(z * nx * ny, (z + 1) * nx * ny);
  const sizes = Array.from({ length: nz }, (_, z) => slice(z).reduce((sum, value) => sum + value, 0));
  const z = sizes.indexOf(Math.max(...sizes));
  const there = [];
  slice(z).forEach((value, index) => value && there.push([index % nx, Math.floor(index / nx)]));
  const middle = [0, 1].map((axis) => there.reduce((sum, place) => sum + place[axis], 0) / there.length);
  const away = ([x, y]) => Math.hypot(x - middle[0], y - middle[1]);
  return [...there.reduce((nearest, place) => (away(place) < away(nearest) ? place : nearest)), z];
}

export const currentMask = () => state.scan?.mask ?? null;
