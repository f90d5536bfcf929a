/** A volume in memory: NiiVue's image, and its voxels in the order (right, anterior, superior) the page works in. */

import { NVImage } from "./vendor/niivue/index.js";
import { volumeBytes } from "./api.js";
import { fileOf, headerOf } from "./nifti.js";

export class Volume {
  /** `image` is NiiVue's; `header` is what `headerOf` gives. */
  constructor(id, image, header) {
    this.id = id;
    this.image = image;
    this.header = header;
    this.dims = image.dimsRAS.slice(1, 4);
    this.spacing = image.pixDimsRAS.slice(1, 4);
    this.count = this.dims[0] * this.dims[1] * this.dims[2];
    this.voxelMl = (this.spacing[0] * this.spacing[1] * this.spacing[2]) / 1000;
    const { scl_slope: slope, scl_inter: inter } = image.hdr;
    this.slope = Number.isFinite(slope) && slope !== 0 ? slope : 1;
    this.inter = Number.isFinite(inter) ? inter : 0;
  }

  /** The number of a voxel, x running fastest, as masks are stored. */
  index([x, y, z]) {
    return x + this.dims[0] * (y + this.dims[1] * z);
  }

  /** The intensity of a voxel in the file's own units. */
  intensity([x, y, z]) {
    return this.raw(x, y, z) * this.slope + this.inter;
  }

  /** The voxel's indices in the file, which runs in its own directions. */
  inFile([x, y, z]) {
    const { img2RASstart: start, img2RASstep: step, hdr } = this.image;
    const number = start[0] + x * step[0] + start[1] + y * step[1] + start[2] + z * step[2];
    const [, nx, ny] = hdr.dims;
    return [number % nx, Math.floor(number / nx) % ny, Math.floor(number / (nx * ny))];
  }

  raw(x, y, z) {
    const { img2RASstart: start, img2RASstep: step, img } = this.image;
    return img[start[0] + x * step[0] + start[1] + y * step[1] + start[2] + z * step[2]];
  }

  /** One value a voxel of the file, from the page's order to the file's. */
  toFileOrder(voxels) {
    const { img2RASstart: start, img2RASstep: step } = this.image;
    const [nx, ny, nz] = this.dims;
    const stored = new voxels.constructor(voxels.length);
    let index = 0;
    for (let z = 0; z < nz; z += 1) {
      for (let y = 0; y < ny; y += 1) {
        let there = start[0] + start[1] + y * step[1] + start[2] + z * step[2];
        for (let x = 0; x < nx; x += 1, index += 1, there += step[0]) stored[there] = voxels[index];
      }
    }
    return stored;
  }

  /** The mask as a NIfTI file on this volume's grid. */
  maskFile(mask) {
    return fileOf(this.header, this.toFileOrder(mask));
  }

  /** 1 where this volume is not zero, in the page's order. */
  support() {
    const [nx, ny, nz] = this.dims;
    const voxels = new Uint8Array(this.count);
    let index = 0;
    for (let z = 0; z < nz; z += 1)
      for (let y = 0; y < ny; y += 1)
        for (let x = 0; x < nx; x += 1, index += 1) voxels[index] = this.raw(x, y, z) * this.slope + this.inter > 0.5 ? 1 : 0;
    return voxels;
  }

  /** The magnitude that a share of the intensities that are not zero stay within; 0 where all are. */
  limit(share) {
    const { slope, inter } = this;
    const magnitudes = [];
    for (const stored of this.image.img) {
      const size = Math.abs(stored * slope + inter);
      if (size > 0) magnitudes.push(size);
    }
    return Float64Array.from(magnitudes).sort()[Math.ceil(share * magnitudes.length) - 1] ?? 0;
  }

  sameGrid(other) {
    return this.dims.every((size, axis) => size === other.dims[axis]);
  }

  setWindow(low, high) {
    this.image.cal_min = low;
    this.image.cal_max = high;
  }
}

async function read(id, buffer, options = {}) {
  const header = headerOf(buffer);
  const image = await NVImage.loadFromUrl({ url: buffer, name: "volume.nii", colormap: "gray", ...options });
  // Without these the rows of a file already in (right, anterior, superior) order would have no step to walk by.
  if (!image.img2RASstep) throw new Error("The volume has no orientation.");
  return new Volume(id, image, header);
}

/** A volume of the server's, by its id; `arriving`: its bytes, where they were asked for already. */
export async function fetchVolume(id, options = {}, arriving = null) {
  const bytes = await (arriving ?? volumeBytes(id));
  const volume = await read(id, bytes, options);
  performance.mark("read");
  return volume;
}

/** `after` minus `before`, voxel by voxel. */
export function difference(before, after, options) {
  const a = before.image.img;
  const b = after.image.img;
  const values = new Float32Array(b.length);
  for (let i = 0; i < values.length; i += 1) values[i] = b[i] * after.slope + after.inter - (a[i] * before.slope + before.inter);
  return read("difference", fileOf(after.header, values).buffer, options);
}
