/** Opening scans and masks, and letting go of the ones before. */

import { get, packed, upload } from "./api.js";
import { on, remembered, state, tell } from "./bus.js";
import { byId, choices, download, shortened, speak } from "./dom.js";
import { centre, currentMask, Mask } from "./mask.js";
import { attempt, complain, question, say } from "./notices.js";
import { viewer } from "./viewer.js";
import { fetchVolume } from "./volume.js";

const NEW = "new";
/** Letters of a file's name that its list has room for, beside what is said of the file. */
const SCAN_LETTERS = 26;
const MASK_LETTERS = 23;
let opening = 0;
let known = "";

const infoOf = (id) => state.session?.scans.find((scan) => scan.id === id) ?? null;

/** Ask the server how things stand; what lists something is drawn anew where that has changed. */
export async function refreshSession(asked = get("/api/session")) {
  const told = await asked;
  const lasting = JSON.stringify({ ...told, job: null, queue: null });
  state.session = told;
  if (lasting !== known) {
    known = lasting;
    tell("session");
  }
  tell("jobs");
  return told;
}

/** May the drawing be left? Asks where it holds something the server does not have. */
export async function mayLeave() {
  const mask = currentMask();
  if (!mask?.dirty || mask.count === 0) return true;
  const answer = await question("The mask has changes that are not kept", "Keep them in this session before going on?", [
    { value: "keep", text: "Keep and go on", primary: true },
    { value: "discard", text: "Discard the changes" },
    { value: "stay", text: "Stay here" },
  ]);
  if (answer === "keep") return Boolean(await attempt(keepMask));
  return answer === "discard";
}

/** Put a scan on screen, with the mask last chosen for it, or its first. `arriving`: its bytes, where asked for. */
export async function openScan(id, arriving = null) {
  if (state.scan?.id === id) return;
  if (!(await mayLeave())) {
    byId("scan").value = state.scan?.id ?? "";
    return;
  }
  const mine = ++opening;
  loading(`Opening ${infoOf(id)?.name ?? "the case"}`);
  try {
    const info = infoOf(id) ?? (await openCase(id));
    const volume = await fetchVolume(id, {}, arriving);
    if (mine !== opening) return;
    close();
    const scan = { id, name: info.name, volume, after: null, overlays: {}, loaded: new Map() };
    scan.volumes = () => [volume, ...scan.loaded.values()];
    scan.mask = new Mask(volume, null);
    state.scan = scan;
    viewer.showScan(volume, scan.mask.voxels);
    viewer.setVoxel(volume.dims.map((size) => Math.floor(size / 2)));
    remembered.set("scan", id);
    tell("scan");
    byId("scan").value = id;
    speak(`${info.name} is open`);
    const first = info.masks.find((mask) => mask.id === remembered.get(`mask-${id}`)) ?? info.masks[0];
    if (first) await loadMask(first.id);
    for (const finding of info.findings ?? []) if (finding.level === "warning") say(finding.message);
    if (info.input_missing) say("The scan of this case is not there any more: its filled scan is shown instead.");
  } catch (error) {
    if (mine === opening) complain(error);
  } finally {
    if (mine === opening) loading("");
  }
}

/** The scan of a case is read by the server when it is first looked at. */
async function openCase(id) {
  const info = await get(`/api/scans/${encodeURIComponent(id)}`);
  await refreshSession();
  return info;
}

/** Let go of the scan on screen: its voxels, its results, its textures. */
function close() {
  viewer.clear();
  state.scan = null;
  state.result = null;
  state.against = "scan";
  tell("result");
}

/** Make one of the server's masks the one that is drawn on; `null` begins an empty one. */
async function loadMask(id) {
  const { scan } = state;
  const volume = id ? await fetchVolume(id) : null;
  if (state.scan !== scan) return;
  if (volume && !volume.sameGrid(scan.volume)) {
    say("This mask lies on another grid than the scan: it cannot be edited here.");
    return;
  }
  scan.mask = new Mask(scan.volume, id, volume?.support());
  viewer.mask = scan.mask.voxels;
  viewer.refreshMask(null);
  remembered.set(`mask-${scan.id}`, id);
  const middle = centre(scan.mask);
  if (middle) viewer.setVoxel(middle);
  showMasks();
  tell("mask", scan.mask);
}

async function chooseMask() {
  const chosen = byId("mask").value;
  if (await mayLeave()) await attempt(() => loadMask(chosen === NEW ? null : chosen));
  else showMasks();
}

/** Hand the drawing to the server as a mask of this session; gives its id. */
export async function keepMask() {
  const { scan } = state;
  const { mask } = scan;
  if (mask.id && !mask.dirty) return mask.id;
  const edit = mask.done.at(-1) ?? null; // a stroke made meanwhile is not kept yet
  const name = `drawn-${infoOf(scan.id).masks.length + 1}.nii.gz`;
  const kept = await upload(`/api/scans/${scan.id}/masks?name=${encodeURIComponent(name)}`, await packed(mask.file()));
  mask.id = kept.id;
  mask.asKept = edit;
  remembered.set(`mask-${scan.id}`, kept.id);
  for (const { level, message } of kept.findings ?? []) if (level === "warning") say(message);
  await refreshSession();
  tell("mask", mask);
  return kept.id;
}

/** A file dropped on the page, as a scan of the session or as a mask of the scan on screen. */
export async function openFile(file, kind) {
  loading(`Reading ${file.name}`);
  try {
    const name = encodeURIComponent(file.name);
    if (kind === "mask") {
      const kept = await upload(`/api/scans/${state.scan.id}/masks?name=${name}`, file);
      for (const { level, message } of kept.findings ?? []) if (level === "warning") say(message);
      await refreshSession();
      await loadMask(kept.id);
    } else {
      const scan = await upload(`/api/scans?name=${name}`, file);
      await refreshSession();
      await openScan(scan.id);
    }
  } finally {
    loading("");
  }
}

/** An option for a file: its name, shortened where it is long, and what is said of it. */
const named = (value, name, letters, about) => ({ value, text: shortened(name, letters) + about, title: name + about });

function showScans() {
  const { scans } = state.session;
  const options = scans.map(({ id, name, shape, spacing_mm: mm }) => named(id, name, SCAN_LETTERS, `  (${shape.join("×")}, ${mm.map((size) => Number(size.toFixed(2))).join("×")} mm)`));
  choices(byId("scan"), options, state.scan?.id);
  byId("empty").hidden = scans.length > 0;
  showMasks();
}

function showMasks() {
  const masks = infoOf(state.scan?.id)?.masks ?? [];
  const options = masks.map(({ id, name, volume_ml: ml }) => named(id, name, MASK_LETTERS, ` (${ml.toFixed(2)} ml)`));
  choices(byId("mask"), [...options, { value: NEW, text: "new, empty mask" }], state.scan?.mask.id ?? NEW);
}

function loading(text) {
  byId("loading").hidden = !text;
  byId("loading").textContent = text;
}

export function start() {
  byId("scan").addEventListener("change", () => openScan(byId("scan").value));
  byId("mask").addEventListener("change", chooseMask);
  byId("mask-keep").addEventListener("click", () => attempt(keepMask));
  byId("mask-download").addEventListener("click", () => {
    attempt(async () => download(await packed(currentMask().file()), "mask.nii.gz", "application/gzip"));
  });
  on("session", showScans);
  on("scan", showScans);
}
