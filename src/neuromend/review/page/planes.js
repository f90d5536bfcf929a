/** The tiles of the stage: which plane each shows, and where it stands. */

import { SLICE_TYPE } from "./vendor/niivue/index.js";

export const PLANES = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, render: SLICE_TYPE.RENDER };
export const NAMES = { [SLICE_TYPE.AXIAL]: "Axial", [SLICE_TYPE.CORONAL]: "Coronal", [SLICE_TYPE.SAGITTAL]: "Sagittal", [SLICE_TYPE.RENDER]: "3-D" };
const GAP = 0.003;
const HALF = 0.5 - GAP / 2;
export const GRID = [
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, HALF, HALF] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0.5 + GAP / 2, 0, HALF, HALF] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0, 0.5 + GAP / 2, HALF, HALF] },
  { sliceType: SLICE_TYPE.RENDER, position: [0.5 + GAP / 2, 0.5 + GAP / 2, HALF, HALF] },
];
/** The grid without its 3-D tile. */
export const PLANES_ONLY = GRID.slice(0, 3);
