/** Fill: what will be done, how long it takes, how far it is; jobs outlive this page, so they are only watched. */

import { get, Lost, post, remove } from "./api.js";
import { on, state, tell } from "./bus.js";
import { byId, choices, make, seconds, speak } from "./dom.js";
import { currentMask } from "./mask.js";
import { attempt, complain, say } from "./notices.js";
import { keepMask, refreshSession } from "./scans.js";

const POLL_MS = 500;
const LOST_MS = 2000;
const ESTIMATE_MS = 400;
const OVER = ["done", "failed", "cancelled"];
const jobs = new Map();
let estimating = 0;
let sending = false;

const model = () => state.session?.models.find(({ name }) => name === byId("model").value);

/** What the boxes say, or null (and a word about it) where one of them holds something else. */
function settings() {
  const numbers = {};
  for (const name of ["samples", "steps", "seed"]) {
    const box = byId(name);
    if (!box.checkValidity() || (box.value === "" && name !== "steps")) return null;
    numbers[name] = box.value === "" ? null : Number(box.value);
  }
  return { model: byId("model").value, ...numbers };
}

function key() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Begin: the drawing is kept first where the server has not seen it. */
export async function fill() {
  const mask = currentMask();
  const chosen = settings();
  if (!mask || sending) return;
  if (mask.count === 0) return say("The mask is empty: draw over what should be filled, or choose a mask.");
  if (!chosen) return say("Samples, steps and seed are whole numbers within the limits of their boxes.");
  sending = true;
  byId("fill").disabled = true;
  try {
    const scan = state.scan.id;
    const id = await keepMask();
    watch(await post("/api/jobs", { scan, mask: id, ...chosen, key: key() }));
    speak("Filling has begun");
  } finally {
    sending = false;
    byId("fill").disabled = !state.scan;
  }
}

/** Stop the job that runs (or the last one that waits). */
export function cancelJob(job = [...jobs.values()].find(({ state: how }) => !OVER.includes(how))) {
  if (job) attempt(() => remove(`/api/jobs/${job.id}`));
}

/** Follow a job to its end. */
function watch(job) {
  const known = jobs.has(job.id);
  jobs.set(job.id, job);
  show();
  if (!known && !OVER.includes(job.state)) setTimeout(() => poll(job.id), POLL_MS);
}

async function poll(id) {
  let job;
  try {
    job = await get(`/api/jobs/${id}`);
  } catch (error) {
    if (error instanceof Lost) return setTimeout(() => poll(id), LOST_MS);
    jobs.delete(id);
    show();
    return complain(error);
  }
  if (!jobs.has(id)) return undefined;
  jobs.set(id, job);
  show();
  if (!OVER.includes(job.state)) return setTimeout(() => poll(id), POLL_MS);
  jobs.delete(id);
  return over(job);
}

async function over(job) {
  show();
  if (job.state === "failed") complain(job.error ?? { what: "The fill failed." });
  else if (job.state === "cancelled") say("Cancelled: nothing was changed.");
  await attempt(refreshSession);
  if (job.state !== "done") return;
  speak("The fill is ready");
  tell("filled", job.result);
}

function show() {
  byId("jobs").replaceChildren(...[...jobs.values()].map(row));
}

function row(job) {
  const waiting = job.state === "queued";
  const bar = make("progress", { "aria-label": "Progress of the fill" });
  if (!waiting && job.of) Object.assign(bar, { max: job.of, value: job.done });
  const words = waiting
    ? `waiting, place ${job.position}`
    : `${job.stage || "starting"}${job.of ? ` ${job.done} of ${job.of}` : ""}${job.eta_s === null || job.eta_s === undefined ? "" : `, about ${seconds(job.eta_s)} left`}`;
  return make("div", { class: "job" }, bar, make("span", { class: "small" }, words), make("button", { type: "button", "aria-label": "Cancel this fill", onclick: () => cancelJob(job) }, "Cancel"));
}

/** Ask how long it would take, shortly after the last change. */
function estimate() {
  clearTimeout(estimating);
  estimating = setTimeout(async () => {
    const mask = currentMask();
    const chosen = settings();
    if (!mask || mask.count === 0 || !chosen) {
      byId("estimate").textContent = mask && mask.count === 0 ? "the mask is empty" : "";
      return;
    }
    try {
      const answer = await post("/api/estimate", { scan: state.scan.id, mask: mask.dirty ? null : mask.id, model: chosen.model, samples: chosen.samples, steps: chosen.steps });
      byId("estimate").textContent = answer.seconds === null ? "time not known yet" : `takes about ${seconds(answer.seconds)}`;
      byId("estimate").title = answer.basis ?? "";
    } catch (error) {
      byId("estimate").textContent = error instanceof Lost ? "" : error.what;
    }
  }, ESTIMATE_MS);
}

function showModel() {
  const { kind, description, expected } = model() ?? {};
  byId("model-text").textContent = [kind, description].filter(Boolean).join(" · ");
  // 0 samples: the expected fill, which has no chance in it; not every model knows it.
  byId("samples").min = expected ? 0 : 1;
  if (!expected && byId("samples").value === "0") byId("samples").value = 1;
  byId("samples").title = expected ? "0: the expected fill, the same every time" : "Each sample is one plausible fill";
  byId("model-text").title = description ?? "";
  estimate();
}

export function start() {
  byId("fill").addEventListener("click", () => attempt(fill));
  byId("model").addEventListener("change", showModel);
  for (const name of ["samples", "steps", "seed"]) byId(name).addEventListener("input", estimate);
  on("session", () => {
    const models = state.session.models;
    if (byId("model").options.length !== models.length) {
      choices(byId("model"), models.map(({ name }) => ({ value: name, text: name })), state.session.model);
      showModel();
    }
  });
  on("jobs", () => {
    for (const job of [state.session.job, ...(state.session.queue ?? [])]) if (job) watch(job);
  });
  on("scan", () => {
    byId("fill").disabled = !state.scan;
    estimate();
  });
  on("mask", estimate);
  on("filled", estimate); // it may have been measured now
  byId("fill").disabled = true;
}
