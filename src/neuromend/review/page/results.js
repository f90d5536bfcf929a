/** The results of the scan on screen: listed, shown against the scan or against each other, saved, deleted. */

import { post, remove } from "./api.js";
import { on, state, tell } from "./bus.js";
import { show } from "./compare.js";
import { all, byId, choices, make, seconds, speak } from "./dom.js";
import { attempt, question, say } from "./notices.js";
import { refreshSession } from "./scans.js";
import { viewer } from "./viewer.js";
import { fetchVolume } from "./volume.js";

let choosing = 0;

export const results = () => state.session?.scans.find((scan) => scan.id === state.scan?.id)?.results ?? [];

const nameOf = (result) => `${madeWith(result)}, seed ${result.seed}`;

const madeWith = (result) =>
  `${result.model}${result.samples ? `, ${result.samples} ${result.samples > 1 ? "samples" : "sample"}` : ""}${result.steps > 1 ? `, ${result.steps} steps` : ""}`;

/** The grey picture of a result, held until neither side shows it any more. */
async function picture(result, file = "filled") {
  const { scan } = state;
  const id = result.files[file];
  if (!scan.loaded.has(id)) {
    const volume = await fetchVolume(id);
    volume.setWindow(scan.volume.image.cal_min, scan.volume.image.cal_max);
    scan.loaded.set(id, volume);
  }
  return scan.loaded.get(id);
}

function letGo(scan, kept) {
  for (const [id, volume] of scan.loaded) if (!kept.includes(volume)) scan.loaded.delete(id);
}

/** Show a result as "after" (null: none). `file` is "filled" or one of its samples. */
export async function choose(result, file = "filled") {
  const { scan } = state;
  if (!scan) return;
  const mine = ++choosing;
  const [volume] = result ? await Promise.all([picture(result, file), viewer.prepareAfter()]) : [null];
  if (mine !== choosing || state.scan !== scan) return;
  scan.after = volume;
  scan.file = file;
  state.result = result;
  viewer.setAfter(volume);
  letGo(scan, [scan.after, scan.beforeVolume]);
  tell("result");
  list();
  if (result) speak(`Result ${nameOf(result)} is shown`);
}

/** Show the scan (or another result) as "before". */
async function setAgainst(id) {
  const { scan } = state;
  const result = results().find((one) => one.id === id);
  const volume = result ? await picture(result) : null;
  if (state.scan !== scan) return;
  state.against = result ? id : "scan";
  scan.beforeVolume = volume;
  viewer.setBefore(volume ?? scan.volume);
  letGo(scan, [scan.after, volume]);
  list();
}

/** The next (1) or the one before (-1) in the list. */
export function step(by) {
  const shown = [...results()].reverse();
  if (shown.length === 0) return;
  const at = shown.findIndex((result) => result.id === state.result?.id);
  attempt(() => choose(shown[(at + by + shown.length) % shown.length]));
}

/** Save the result that is shown into the output folder. */
export async function save(result = state.result) {
  if (!result) return;
  const path = `/api/results/${result.id}/save`;
  let answer;
  try {
    answer = await post(path, {});
  } catch (error) {
    if (error.status !== 409) throw error;
    const yes = await question("There are files of this name already", error.what, [
      { value: "keep", text: "Leave them as they are", primary: true },
      { value: "overwrite", text: "Write over them" },
    ]);
    if (yes !== "overwrite") return;
    answer = await post(path, { overwrite: true });
  }
  say(`Saved: ${answer.files.join(", ")}`);
  await refreshSession();
}

async function discard(result) {
  if (!result.saved) {
    const yes = await question("Delete this result?", `${nameOf(result)} has not been saved.`, [
      { value: "no", text: "Keep it", primary: true },
      { value: "yes", text: "Delete it" },
    ]);
    if (yes !== "yes") return;
  }
  await remove(`/api/results/${result.id}`);
  if (state.against === result.id) await setAgainst("scan");
  if (state.result?.id === result.id) await choose(null);
  await refreshSession();
}

export const discardShown = () => state.result && attempt(() => discard(state.result));

function sideButton(side, pressed, label, onclick) {
  return make("button", { type: "button", class: "side-button", "aria-pressed": String(pressed), "aria-label": label, title: label, onclick }, side);
}

function row(result) {
  const name = nameOf(result);
  const chosen = state.result?.id === result.id;
  const samples = Object.keys(result.files).filter((file) => file.startsWith("sample"));
  const buttons = make(
    "span",
    { class: "buttons" },
    make("button", { type: "button", disabled: Boolean(result.saved), title: result.saved ? result.saved.join(", ") : "Save", "aria-label": `Save ${name}`, onclick: () => attempt(() => save(result)) }, result.saved ? "Saved" : "Save"),
    make("button", { type: "button", "aria-label": `Delete ${name}`, title: "Delete", onclick: () => attempt(() => discard(result)) }, "×"),
  );
  const text = make("span", { class: "result-text" }, make("span", {}, madeWith(result)), make("span", { class: "muted small" }, `seed ${result.seed}${result.seconds === null ? "" : ` · ${seconds(result.seconds)}`}`));
  const item = make(
    "li",
    { class: chosen ? "chosen" : "" },
    sideButton("A", state.against === result.id, `Show ${name} as before`, () => attempt(() => setAgainst(state.against === result.id ? "scan" : result.id))),
    sideButton("B", chosen, `Show ${name} as after`, () => attempt(() => choose(result))),
    text,
    buttons,
  );
  if (chosen && samples.length > 0) item.append(sampleChoice(result, samples));
  const warnings = (result.findings ?? []).filter(({ level }) => level === "warning");
  if (chosen) for (const finding of warnings) item.append(make("p", { class: `finding ${finding.level}` }, make("code", {}, finding.code), ` ${finding.message}`));
  return item;
}

function sampleChoice(result, samples) {
  const select = make("select", { class: "sample", "aria-label": "Which picture of this result", onchange: () => attempt(() => choose(result, select.value)) });
  choices(select, [{ value: "filled", text: samples.length > 1 ? "the filled scan" : "filled" }, ...samples.sort().map((file) => ({ value: file, text: file.replace("-", " ") }))], state.scan.file);
  return select;
}

function list() {
  const shown = [...results()].reverse();
  const scanRow = make(
    "li",
    {},
    sideButton("A", state.against === "scan", "Show the scan as before", () => attempt(() => setAgainst("scan"))),
    make("span", { class: "side-space" }),
    make("span", { class: "result-text" }, "the scan itself"),
  );
  const none = make("li", { class: "none muted" }, "None yet: draw or choose a mask, then Fill.");
  // Whoever works with the keyboard stays on the button that was pressed.
  const focused = byId("results").contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  byId("results").replaceChildren(...(shown.length > 0 ? [...shown.map(row), scanRow] : [none]));
  if (focused) all("[aria-label]", byId("results")).find((one) => one.getAttribute("aria-label") === focused)?.focus();
  byId("out-dir").textContent = state.session?.out_dir ? `saved into ${state.session.out_dir}` : "";
}

export function start() {
  on("session", () => {
    // The server's word on a result that is shown may be newer (saved, for instance).
    const fresh = results().find((result) => result.id === state.result?.id);
    if (state.result && fresh) state.result = fresh;
    else if (state.result && state.scan) attempt(() => choose(null));
    list();
  });
  on("scan", () => {
    list();
    const newest = results().at(-1);
    if (newest) attempt(() => choose(newest));
  });
  on("filled", (result) => attempt(async () => {
    if (result.scan !== state.scan?.id) return;
    await choose(results().find((one) => one.id === result.id) ?? result);
    show("after");
  }));
}
