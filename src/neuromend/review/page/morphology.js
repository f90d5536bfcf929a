/**
 * Changes of a mask as lists of voxels, without a screen: discs and balls, growing and shrinking by millimetres,
 * joined regions, closed outlines. Masks are Uint8Arrays of 0 and 1, x fastest; `grid` is {dims, spacing}.
 */

/** The box [x0, y0, z0, x1, y1, z1] around the ones of a mask, or null where there are none. */
export function boxOf(mask, { dims: [nx, ny, nz] }) {
  const box = [nx, ny, nz, -1, -1, -1];
  for (let index = mask.indexOf(1); index >= 0; index = mask.indexOf(1, index + 1)) {
    const x = index % nx;
    const row = (index - x) / nx;
    const y = row % ny;
    widen(box, x, y, (row - y) / ny);
  }
  return box[3] < 0 ? null : box;
}

/** Make a box take in a voxel. */
export function widen(box, x, y, z) {
  if (x < box[0]) box[0] = x;
  if (y < box[1]) box[1] = y;
  if (z < box[2]) box[2] = z;
  if (x > box[3]) box[3] = x;
  if (y > box[4]) box[4] = y;
  if (z > box[5]) box[5] = z;
}

/** The steps [dx, dy, dz] within `radius` millimetres; `flat` is the axis along which a disc has no thickness. */
export function ball(radius, spacing, flat = -1) {
  const reach = spacing.map((size, axis) => (axis === flat ? 0 : Math.floor(radius / size)));
  const steps = [];
  for (let dz = -reach[2]; dz <= reach[2]; dz += 1)
    for (let dy = -reach[1]; dy <= reach[1]; dy += 1)
      for (let dx = -reach[0]; dx <= reach[0]; dx += 1) {
        const distance = Math.hypot(dx * spacing[0], dy * spacing[1], dz * spacing[2]);
        if (distance <= radius) steps.push([dx, dy, dz]);
      }
  return steps;
}

/**
 * Voxels to switch so that the mask reaches (sign 1) or loses (sign -1) `mm` millimetres: squared distances to
 * the nearest voxel of the other kind, exact, one axis after the other (Felzenszwalb and Huttenlocher 2012).
 */
export function grown(mask, grid, mm, sign) {
  const box = boxOf(mask, grid);
  if (!box) return [];
  const { dims, spacing } = grid;
  const margin = spacing.map((size) => (sign > 0 ? Math.ceil(mm / size) : 1));
  const from = [0, 1, 2].map((axis) => box[axis] - margin[axis]);
  const size = [0, 1, 2].map((axis) => box[axis + 3] + margin[axis] - from[axis] + 1);
  const field = new Float32Array(size[0] * size[1] * size[2]).fill(1e12);
  const walk = (visit) => {
    let cell = 0;
    for (let z = 0; z < size[2]; z += 1)
      for (let y = 0; y < size[1]; y += 1)
        for (let x = 0; x < size[0]; x += 1, cell += 1) {
          const [vx, vy, vz] = [x + from[0], y + from[1], z + from[2]];
          const inside = vx >= 0 && vy >= 0 && vz >= 0 && vx < dims[0] && vy < dims[1] && vz < dims[2];
          visit(cell, inside ? vx + dims[0] * (vy + dims[1] * vz) : -1);
        }
  };
  const source = sign > 0 ? 1 : 0;
  walk((cell, voxel) => {
    // What lies beyond the scan counts as outside the mask.
    if ((voxel < 0 ? 0 : mask[voxel]) === source) field[cell] = 0;
  });
  distances(field, size, spacing);
  const switched = [];
  const limit = (mm + 1e-4) ** 2;
  walk((cell, voxel) => {
    if (voxel >= 0 && mask[voxel] !== source && field[cell] <= limit) switched.push(voxel);
  });
  return switched;
}

function distances(field, size, spacing) {
  const strides = [1, size[0], size[0] * size[1]];
  for (let axis = 0; axis < 3; axis += 1) {
    const [p, q] = [0, 1, 2].filter((other) => other !== axis);
    for (let j = 0; j < size[q]; j += 1)
      for (let i = 0; i < size[p]; i += 1)
        lowerEnvelope(field, i * strides[p] + j * strides[q], strides[axis], size[axis], spacing[axis] ** 2);
  }
}

function lowerEnvelope(field, first, stride, count, scale) {
  const values = new Float64Array(count);
  const places = new Int32Array(count);
  const bounds = new Float64Array(count + 1);
  for (let i = 0; i < count; i += 1) values[i] = field[first + i * stride] / scale;
  let last = 0;
  bounds[0] = -Infinity;
  bounds[1] = Infinity;
  for (let i = 1; i < count; i += 1) {
    let crossing;
    do {
      const place = places[last];
      crossing = (values[i] + i * i - values[place] - place * place) / (2 * (i - place));
    } while (crossing <= bounds[last] && --last >= 0);
    last += 1;
    places[last] = i;
    bounds[last] = crossing;
    bounds[last + 1] = Infinity;
  }
  for (let i = 0, part = 0; i < count; i += 1) {
    while (bounds[part + 1] < i) part += 1;
    field[first + i * stride] = ((i - places[part]) ** 2 + values[places[part]]) * scale;
  }
}

/**
 * Voxels joined by their faces to `seed`, within `radius` millimetres of it, whose value differs from the
 * seed's by no more than `tolerance`. `value(x, y, z)` reads the scan.
 */
export function region(seed, grid, value, tolerance, radius) {
  const { dims, spacing } = grid;
  const middle = value(...seed);
  const number = (x, y, z) => x + dims[0] * (y + dims[1] * z);
  const seen = new Set([number(...seed)]);
  const queue = [seed];
  for (let next = 0; next < queue.length; next += 1) {
    const [x, y, z] = queue[next];
    for (const [a, b, c] of [[x - 1, y, z], [x + 1, y, z], [x, y - 1, z], [x, y + 1, z], [x, y, z - 1], [x, y, z + 1]]) {
      if (a < 0 || b < 0 || c < 0 || a >= dims[0] || b >= dims[1] || c >= dims[2]) continue;
      const there = number(a, b, c);
      if (seen.has(there) || Math.abs(value(a, b, c) - middle) > tolerance) continue;
      if (Math.hypot((a - seed[0]) * spacing[0], (b - seed[1]) * spacing[1], (c - seed[2]) * spacing[2]) > radius) continue;
      seen.add(there);
      queue.push([a, b, c]);
    }
  }
  return [...seen];
}

/**
 * The voxels of one slice that a closed outline around `seed` encloses; null where the outline is open (the
 * region reaches the edge of the slice) or the seed is in the mask already. `axis` is across the slice.
 */
export function enclosed(mask, seed, { dims }, axis) {
  const [p, q] = [0, 1, 2].filter((other) => other !== axis);
  const strides = [1, dims[0], dims[0] * dims[1]];
  const base = seed[axis] * strides[axis];
  const start = seed[p] * strides[p] + seed[q] * strides[q] + base;
  if (mask[start]) return null;
  const seen = new Set([start]);
  const queue = [[seed[p], seed[q]]];
  for (let next = 0; next < queue.length; next += 1) {
    const [i, j] = queue[next];
    if (i === 0 || j === 0 || i === dims[p] - 1 || j === dims[q] - 1) return null;
    for (const [a, b] of [[i - 1, j], [i + 1, j], [i, j - 1], [i, j + 1]]) {
      const there = a * strides[p] + b * strides[q] + base;
      if (seen.has(there) || mask[there]) continue;
      seen.add(there);
      queue.push([a, b]);
    }
  }
  return [...seen];
}
