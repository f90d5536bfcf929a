/** The page's beginning: the viewer, then its parts, then what the server says; and the watch over the connection. */

import { Lost } from "./api.js";
import { on, state } from "./bus.js";
import * as cohort from "./cohort.js";
import * as compare from "./compare.js";
import { all, byId, press } from "./dom.js";
import * as drop from "./drop.js";
import * as first from "./first.js";
import * as fill from "./fill.js";
import * as keys from "./keys.js";
import * as layers from "./layers.js";
import { currentMask } from "./mask.js";
import { attempt, complain } from "./notices.js";
import * as pointer from "./pointer.js";
import * as results from "./results.js";
import * as scales from "./scales.js";
import * as scans from "./scans.js";
import * as tools from "./tools.js";
import { viewer } from "./viewer.js";
import * as windowing from "./windowing.js";

const HEARTBEAT_MS = 4000;
let connected = null;

/** The line at the crosshair: millimetres, voxel, intensities, inside the mask or not. */
function showPlace() {
  const { scan } = state;
  if (!scan) return;
  const voxel = viewer.voxel;
  const number = (value) => String(Number(value.toPrecision(5)));
  byId("at-mm").textContent = `${viewer.mm.map((value) => value.toFixed(1)).join(", ")} mm`;
  byId("at-voxel").textContent = `voxel ${scan.volume.inFile(voxel).join(", ")}`;
  byId("at-value").textContent = `scan ${number(scan.volume.intensity(voxel))}`;
  byId("at-after").textContent = scan.after ? `filled ${number(scan.after.intensity(voxel))}` : "";
  byId("at-mask").textContent = scan.mask.voxels[scan.volume.index(voxel)] ? "in the mask" : "";
}

function showConnection(how) {
  if (how === connected) return;
  const back = connected === "lost" && how === "there";
  connected = how;
  const lost = how === "lost";
  byId("connection").textContent = lost ? "not connected" : "connected";
  byId("connection").classList.toggle("bad", lost);
  byId("banner").hidden = !lost;
  byId("banner").textContent = lost
    ? "The server does not answer. Your drawing is kept in this page; you can go on drawing. Start `neuromend review` again if it was stopped; the page tries again by itself."
    : "";
  if (back) attempt(scans.refreshSession);
}

/** Notice a server that stopped, and let it know that a page is open (browsers slow this down in hidden tabs). */
async function heartbeat() {
  try {
    await scans.refreshSession();
  } catch (error) {
    if (!(error instanceof Lost)) complain(error);
  }
  setTimeout(heartbeat, HEARTBEAT_MS);
}

async function begin() {
  performance.mark("code"); // what `benchmarks/bench_review.py --browser` reads
  on("connection", showConnection);
  on("drawn", showPlace);
  on("crosshair", showPlace);
  on("mask", showPlace);
  on("result", showPlace);
  on("view", (view) => press("view", view));
  try {
    await viewer.start();
  } catch (error) {
    complain({ what: "The pictures cannot be drawn.", why: `This browser offers no WebGL 2 (${error.message}).`, fix: "Use a current Firefox, Chrome, Edge or Safari, with hardware acceleration or software rendering on." });
    return;
  }
  performance.mark("viewer");
  for (const part of [layers, scales, tools, windowing, pointer, compare, scans, results, fill, cohort, drop, keys]) part.start();
  for (const button of all("[data-view]")) button.addEventListener("click", () => viewer.setView(button.dataset.view));
  byId("reset-view").addEventListener("click", () => viewer.resetView());
  window.addEventListener("beforeunload", (event) => {
    if (currentMask()?.dirty && currentMask().count > 0) event.preventDefault();
  });
  await attempt(async () => {
    await scans.refreshSession(first.session);
    showConnection("there");
    const scan = await first.scan;
    if (scan) await scans.openScan(scan.id, first.bytes);
    else cohort.step(1);
  });
  setTimeout(heartbeat, HEARTBEAT_MS);
  document.body.dataset.ready = "true";
}

begin();
