/** A cohort: its cases with flags and thumbnails, one after the other, each with a verdict and a note. */

import { blob, put } from "./api.js";
import { on, state } from "./bus.js";
import { all, byId, download, make, press, speak } from "./dom.js";
import { attempt } from "./notices.js";
import { openScan } from "./scans.js";

const WORDS = { accept: "accepted", reject: "rejected", "needs-edit": "needs edit" };
const NOTE_MS = 800;
const pictures = new Map();
let noteTimer = null;
let heading = null; // the scan of the case that is being opened

const cases = () => state.session?.cohort?.cases ?? [];
const current = () => cases().find(({ scan }) => scan === state.scan?.id) ?? null;

function visible() {
  const wanted = byId("case-filter").value.trim().toLowerCase();
  const show = byId("case-show").value;
  return cases().filter((one) => {
    const verdict = one.verdict?.verdict ?? null;
    const kind = show === "all" || (show === "open" && !verdict) || (show === "flagged" && one.flags.length > 0) || verdict === show;
    const text = [one.name, ...one.flags.flatMap(({ code, message }) => [code, message])].join(" ").toLowerCase();
    return kind && text.includes(wanted);
  });
}

/** Open the case that lies `by` further in the list that is shown. */
export function step(by) {
  const list = visible();
  if (list.length === 0) return;
  // Who presses twice goes two cases further, although the first of them is still being opened.
  const from = heading ?? state.scan?.id;
  const at = list.findIndex(({ scan }) => scan === from);
  const next = at < 0 ? (by > 0 ? 0 : list.length - 1) : (at + by + list.length) % list.length;
  attempt(() => go(list[next]));
}

async function go({ scan }) {
  heading = scan;
  try {
    await flushNote();
    if (heading === scan) await openScan(scan);
  } finally {
    if (heading === scan) heading = null;
  }
}

/** Give (or, given twice, take back) a verdict on the case on screen. */
export async function judge(verdict) {
  const one = current();
  if (!one) return;
  await send(one, one.verdict?.verdict === verdict ? null : verdict);
}

async function send(one, verdict) {
  clearTimeout(noteTimer);
  noteTimer = null;
  const note = byId("note").value;
  byId("verdict-saved").textContent = "saving";
  let kept;
  try {
    kept = await put(`/api/cases/${encodeURIComponent(one.id)}/verdict`, { verdict, note });
  } catch (error) {
    byId("verdict-saved").textContent = "not saved";
    throw error;
  }
  const fresh = cases().find(({ id }) => id === one.id);
  if (fresh) fresh.verdict = verdict || note ? { verdict, note, time: kept?.time } : null;
  byId("verdict-saved").textContent = "saved";
  speak(`${one.name}: ${WORDS[verdict] ?? "no verdict"}`);
  list();
  showVerdict(false);
}

/** A note is stored a moment after the last key, and before another case opens. */
function typed() {
  clearTimeout(noteTimer);
  byId("verdict-saved").textContent = "…";
  noteTimer = setTimeout(() => attempt(flushNote), NOTE_MS);
}

async function flushNote() {
  if (noteTimer === null) return;
  const one = current();
  if (one) await send(one, one.verdict?.verdict ?? null);
}

async function thumbnail(one, image) {
  if (!pictures.has(one.thumbnail)) pictures.set(one.thumbnail, blob(`/api/files/${encodeURIComponent(one.thumbnail)}`).then((data) => URL.createObjectURL(data)));
  try {
    image.src = await pictures.get(one.thumbnail);
  } catch {
    pictures.delete(one.thumbnail); // the list stays of use without its pictures
  }
}

function row(one) {
  const verdict = one.verdict?.verdict ?? null;
  const image = one.thumbnail ? make("img", { class: "thumb", alt: "", width: 56, height: 56 }) : make("span", { class: "thumb" });
  const flags = one.flags.map(({ code, level, message }) => make("span", { class: `flag ${level}`, title: message }, code));
  const text = make("span", { class: "case-text" }, make("span", { class: "case-name" }, one.name), make("span", { class: "small muted" }, one.volume_ml === null ? "" : `${one.volume_ml.toFixed(2)} ml`), make("span", { class: "flags" }, ...flags));
  const button = make("button", { type: "button", class: "case", "aria-current": one === current() ? "true" : "false", onclick: () => attempt(() => go(one)) }, image, text, make("span", { class: `verdict-mark ${verdict ?? "open"}` }, WORDS[verdict] ?? ""));
  return { item: make("li", {}, button), image, one };
}

function list() {
  if (!state.session?.cohort) return;
  byId("cohort").hidden = false;
  const rows = visible().map(row);
  const focused = document.activeElement?.closest?.("#cases li");
  const place = focused ? [...byId("cases").children].indexOf(focused) : -1;
  byId("cases").replaceChildren(...(rows.length > 0 ? rows.map(({ item }) => item) : [make("li", { class: "none muted" }, "No case matches.")]));
  if (place >= 0) byId("cases").children[place]?.querySelector("button")?.focus();
  for (const { image, one } of rows) if (one.thumbnail) thumbnail(one, image);
  const judged = cases().filter(({ verdict }) => verdict?.verdict).length;
  byId("case-count").textContent = `${judged} of ${cases().length} judged`;
}

function showVerdict(withNote = true) {
  const one = current();
  for (const control of all("button, textarea", byId("verdict"))) control.disabled = !one && !["previous-case", "next-case"].includes(control.id);
  press("verdict", one?.verdict?.verdict ?? "");
  if (withNote) {
    byId("note").value = one?.verdict?.note ?? "";
    byId("verdict-saved").textContent = "";
  }
}

export async function exportTable() {
  download(await blob("/api/verdicts.tsv"), "verdicts.tsv", "text/tab-separated-values");
}

export function start() {
  byId("case-filter").addEventListener("input", list);
  byId("case-show").addEventListener("change", list);
  byId("note").addEventListener("input", typed);
  byId("previous-case").addEventListener("click", () => step(-1));
  byId("next-case").addEventListener("click", () => step(1));
  byId("export").addEventListener("click", () => attempt(exportTable));
  for (const button of all("[data-verdict]")) button.addEventListener("click", () => attempt(() => judge(button.dataset.verdict)));
  on("session", () => {
    list();
    if (noteTimer === null && document.activeElement !== byId("note")) showVerdict();
  });
  on("scan", () => {
    list();
    showVerdict();
    byId("cases").querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
  });
}
