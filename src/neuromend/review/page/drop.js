/** A scan or a mask dropped on the page, or chosen from the disk: it goes to the server on this machine, no further. */

import { state } from "./bus.js";
import { byId } from "./dom.js";
import { attempt, question, say } from "./notices.js";
import { openFile } from "./scans.js";

const VOLUME = /\.(nii|nii\.gz|mgz)$/i;
const LOOKS_LIKE_MASK = /(mask|lesion|seg|label|roi)/i;

async function take(files) {
  if (files.length !== 1) return say("Drop one file at a time.");
  const [file] = files;
  if (!VOLUME.test(file.name)) return say("Drop a NIfTI or MGZ file: .nii, .nii.gz or .mgz.");
  const limit = state.session?.limits?.max_bytes;
  if (limit && file.size > limit) return say(`This file has ${Math.round(file.size / 1e6)} MB; the server takes up to ${Math.round(limit / 1e6)} MB.`);
  const kind = state.scan ? await ask(file) : "scan";
  return kind ? attempt(() => openFile(file, kind)) : undefined;
}

function ask(file) {
  const mask = LOOKS_LIKE_MASK.test(file.name);
  return question("What is this file?", file.name, [
    { value: "mask", text: "A mask of the scan shown", primary: mask },
    { value: "scan", text: "Another scan", primary: !mask },
    { value: "", text: "Cancel" },
  ]);
}

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

export function start() {
  const drop = byId("drop");
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    if (hasFiles(event)) drop.hidden = false;
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.hidden = true;
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.hidden = true;
    if (hasFiles(event)) attempt(() => take([...event.dataTransfer.files]));
  });
  byId("open-file").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", () => {
    const files = [...byId("file").files];
    byId("file").value = "";
    attempt(() => take(files));
  });
}
