/** NIfTI headers, byte by byte: a mask or a difference keeps the very geometry (q-form, s-form) of its scan. */

const UINT8 = 2;
const FLOAT32 = 16;

/** Where the fields of NIfTI-1 and NIfTI-2 stand (bytes from the beginning). */
const FIELDS = {
  348: { size: 352, dim: 40, type: 70, bits: 72, offset: 108, slope: 112, inter: 116, max: 124, min: 128 },
  540: { size: 544, dim: 16, type: 12, bits: 14, offset: 168, slope: 176, inter: 184, max: 192, min: 200 },
};

/** The bytes of a header (352 or 544, with no extension) of an unpacked NIfTI file. */
export function headerOf(buffer) {
  const view = new DataView(buffer);
  const little = view.getInt32(0, true) in FIELDS;
  const size = FIELDS[view.getInt32(0, little)]?.size;
  if (!size) throw new Error("This is not a NIfTI file.");
  return { bytes: new Uint8Array(buffer.slice(0, size)), little };
}

/** A NIfTI file with the geometry of `header` around one value a voxel: Uint8Array or Float32Array. */
export function fileOf(header, voxels) {
  const { little } = header;
  const bytes = new Uint8Array(header.bytes.length + voxels.byteLength);
  bytes.set(header.bytes);
  const view = new DataView(bytes.buffer);
  const at = FIELDS[view.getInt32(0, little)];
  const isFloat = voxels instanceof Float32Array;
  const short = at.size === 352;
  const real = (where, value) => (short ? view.setFloat32(where, value, little) : view.setFloat64(where, value, little));
  const whole = (where, value) =>
    short ? view.setInt16(where, value, little) : view.setBigInt64(where, BigInt(value), little);
  whole(at.dim, 3);
  for (let axis = 4; axis < 8; axis += 1) whole(at.dim + axis * (short ? 2 : 8), 1);
  view.setInt16(at.type, isFloat ? FLOAT32 : UINT8, little);
  view.setInt16(at.bits, isFloat ? 32 : 8, little);
  if (short) view.setFloat32(at.offset, at.size, little);
  else view.setBigInt64(at.offset, BigInt(at.size), little);
  real(at.slope, 1);
  real(at.inter, 0);
  real(at.max, 0);
  real(at.min, 0);
  bytes.fill(0, at.size - 4, at.size); // no extension follows
  if (!isFloat || little) bytes.set(new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength), at.size);
  else voxels.forEach((value, index) => view.setFloat32(at.size + 4 * index, value, false));
  return bytes;
}
