/** Every key of the page in one table: it is what the keyboard does, what the help lists, what the buttons name. */

import { remembered, state } from "./bus.js";
import * as cohort from "./cohort.js";
import * as compare from "./compare.js";
import { all, byId, make } from "./dom.js";
import { cancelJob, fill } from "./fill.js";
import * as layers from "./layers.js";
import { currentMask } from "./mask.js";
import { attempt } from "./notices.js";
import * as results from "./results.js";
import { keepMask } from "./scans.js";
import * as tools from "./tools.js";
import { viewer } from "./viewer.js";
import { autoWindow, nudge } from "./windowing.js";

const look = (work) => () => state.scan && work();
const steps = (axis, sign) => (event) => {
  if (!state.scan) return;
  const voxel = viewer.voxel;
  voxel[axis] += sign * (event.shiftKey ? 5 : 1);
  viewer.setVoxel(voxel);
};
/** On screen, left is the patient's left (or right, shown the radiological way). */
const sideways = (sign) => (event) => steps(0, viewer.radiological ? -sign : sign)(event);

export const actions = {
  Look: [
    ["viewAll", "1", "All planes", look(() => viewer.setView("all"))],
    ["viewAxial", "2", "Axial plane alone", look(() => viewer.setView("axial"))],
    ["viewCoronal", "3", "Coronal plane alone", look(() => viewer.setView("coronal"))],
    ["viewSagittal", "4", "Sagittal plane alone", look(() => viewer.setView("sagittal"))],
    ["viewRender", "5", "3-D rendering alone", look(() => viewer.setView("render"))],
    ["left", "ArrowLeft", "Crosshair to the left (Shift: five voxels)", sideways(-1)],
    ["right", "ArrowRight", "Crosshair to the right", sideways(1)],
    ["forward", "ArrowUp", "Crosshair forward", steps(1, 1)],
    ["back", "ArrowDown", "Crosshair back", steps(1, -1)],
    ["up", "PageUp", "Crosshair up: the slice above", steps(2, 1)],
    ["down", "PageDown", "Crosshair down: the slice below", steps(2, -1)],
    ["zoomIn", "+", "Larger", look(() => viewer.zoom(1.25))],
    ["zoomOut", "-", "Smaller", look(() => viewer.zoom(0.8))],
    ["resetView", "0", "Reset zoom, position and rotation", look(() => viewer.resetView())],
    ["crosshair", "x", "Crosshair on or off", look(() => viewer.setCrosshairOn(!viewer.crosshairOn))],
    ["radiological", "l", "Patient's left on the right of the screen, or on the left", look(() => viewer.setRadiological(!viewer.radiological))],
    ["windowAuto", "a", "Automatic window", look(autoWindow)],
    ["levelUp", "Alt+ArrowDown", "Window: darker", look(() => nudge(1, 0))],
    ["levelDown", "Alt+ArrowUp", "Window: brighter", look(() => nudge(-1, 0))],
    ["widthUp", "Alt+ArrowRight", "Window: less contrast", look(() => nudge(0, 1))],
    ["widthDown", "Alt+ArrowLeft", "Window: more contrast", look(() => nudge(0, -1))],
  ],
  "Before and after": [
    ["toggle", "Space", "Before or after", () => compare.toggle()],
    ["before", "Shift+B", "Before", () => compare.show("before")],
    ["after", "Shift+A", "After", () => compare.show("after")],
    ["wipe", "w", "Wipe", () => compare.show("wipe")],
    ["flicker", "f", "Flicker", () => compare.show(compare.compare.mode === "flicker" ? "after" : "flicker")],
    ["wipeLeft", "<", "Wipe to the left", () => compare.setWipe(compare.compare.wipe - 0.05)],
    ["wipeRight", ">", "Wipe to the right", () => compare.setWipe(compare.compare.wipe + 0.05)],
    ["layerMask", "m", "Mask outline on or off", () => layers.toggle("outline")],
    ["layerTint", "t", "Mask tint on or off", () => layers.toggle("tint")],
    ["layerUncertainty", "u", "Uncertainty on or off", () => layers.toggle("uncertainty")],
    ["layerDifference", "d", "Difference on or off", () => layers.toggle("difference")],
  ],
  Draw: [
    ["navigate", "v", "Look (no tool)", () => tools.choose("navigate")],
    ["brush", "b", "Brush (Alt: erase)", () => tools.choose("brush")],
    ["erase", "e", "Eraser", () => tools.choose("erase")],
    ["outline", "i", "Fill in a closed outline", () => tools.choose("outline")],
    ["region", "r", "Region like the point clicked", () => tools.choose("region")],
    ["useTool", "Enter", "Use the tool at the crosshair, on the plane shown (axial where all are)", () => state.scan && useTool()],
    ["smaller", "[", "Smaller brush", () => tools.setBrush(tools.brushSize() - 1)],
    ["larger", "]", "Larger brush", () => tools.setBrush(tools.brushSize() + 1)],
    ["undo", "Ctrl+Z", "Undo", () => currentMask()?.undo()],
    ["redo", "Ctrl+Y", "Redo (also Ctrl+Shift+Z)", () => currentMask()?.redo()],
    ["grow", "g", "Grow the mask", () => tools.growMask(1)],
    ["shrink", "Shift+G", "Shrink the mask", () => tools.growMask(-1)],
    ["clear", "Shift+Delete", "Clear the mask", () => tools.clearMask()],
    ["keepMask", "k", "Keep the mask in this session", () => currentMask()?.count && attempt(keepMask)],
  ],
  "Fill and results": [
    ["fill", "Ctrl+Enter", "Fill", () => attempt(fill)],
    ["cancel", "Shift+Escape", "Cancel the fill", () => cancelJob()],
    ["nextResult", ".", "Next result", () => results.step(1)],
    ["previousResult", ",", "Previous result", () => results.step(-1)],
    ["save", "Ctrl+S", "Save the result shown", () => attempt(() => results.save())],
    ["delete", "Delete", "Delete the result shown", () => results.discardShown()],
  ],
  Cohort: [
    ["nextCase", "n", "Next case", () => cohort.step(1)],
    ["previousCase", "p", "Previous case", () => cohort.step(-1)],
    ["accept", "7", "Accept", () => attempt(() => cohort.judge("accept"))],
    ["needsEdit", "8", "Needs edit", () => attempt(() => cohort.judge("needs-edit"))],
    ["reject", "9", "Reject", () => attempt(() => cohort.judge("reject"))],
    ["note", "Shift+N", "Write the note", () => byId("cohort").hidden || byId("note").focus()],
    ["filter", "/", "Filter the cases", () => byId("cohort").hidden || byId("case-filter").focus()],
    ["export", "Shift+E", "Export the verdicts as TSV", () => byId("cohort").hidden || attempt(cohort.exportTable)],
  ],
  Page: [
    ["open", "o", "Open a file", () => byId("file").click()],
    ["help", "?", "This help", () => toggleHelp()],
  ],
};

const MOUSE = [
  ["Left click or drag", "Crosshair; the tool, where one is chosen; rotates the 3-D rendering"],
  ["Wheel", "Through the slices"],
  ["Ctrl + wheel", "Larger, smaller"],
  ["Right drag", "Window: up and down the level, sideways the width"],
  ["Shift + drag, middle drag", "Move the picture"],
  ["Double click", "One plane alone, and back"],
];

/** A tool without a mouse: on the plane that is shown alone, or the axial one. */
function useTool() {
  const plane = { coronal: 1, sagittal: 2 }[viewer.view] ?? 0;
  const at = viewer.voxel;
  if (tools.tools.current === "outline") tools.fillOutline(at, plane);
  else if (tools.tools.current === "region") tools.takeRegion(at, 1);
  else if (tools.tools.current !== "navigate") {
    const stroke = new tools.Stroke(plane, tools.tools.current === "brush" ? 1 : 0);
    stroke.to(at);
    stroke.end();
  }
}

/** The name of what was pressed, as the table writes it. */
function nameOf(event) {
  const key = event.key === " " ? "Space" : event.key;
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("Ctrl");
  if (event.altKey) parts.push("Alt");
  const letter = /^[a-z]$/i.test(key);
  if (event.shiftKey && (letter || ["Escape", "Delete"].includes(key))) parts.push("Shift");
  parts.push(letter ? (parts.length > 0 ? key.toUpperCase() : key.toLowerCase()) : key === "=" ? "+" : key);
  return parts.join("+");
}

const table = new Map(Object.values(actions).flat().map(([name, key, , run]) => [key, { name, run }]));
table.set("Ctrl+Shift+Z", table.get("Ctrl+Z") && { name: "redo", run: () => currentMask()?.redo() });

const TYPING = "input:not([type=checkbox]):not([type=range]), textarea, select";

function pressed(event) {
  if (document.querySelector("dialog[open]")) {
    if (event.key === "?" && byId("help").open) toggleHelp();
    return;
  }
  const name = nameOf(event);
  const target = event.target;
  const plain = !/^(Ctrl|Alt)\+/.test(name);
  if (plain && target.matches(TYPING)) {
    if (event.key === "Escape") viewer.stage.focus();
    return;
  }
  if (plain && name.length === 1 && remembered.get("keys") === "off" && name !== "?") return;
  // Buttons and sliders keep the keys that work them.
  if (target.matches("button, a, summary") && ["Space", "Enter"].includes(name)) return;
  if (target.matches("input") && (name.startsWith("Arrow") || name.startsWith("Page") || name === "Space")) return;
  const action = table.get(name);
  if (!action) return;
  event.preventDefault();
  attempt(async () => action.run(event));
}

export const shown = (key) => key.split("+").map((part) => ({ ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", PageUp: "Page ↑", PageDown: "Page ↓", Escape: "Esc", "": "+" })[part] ?? (part.length === 1 ? part.toUpperCase() : part));

const caps = (key) => (key === "+" ? [make("kbd", {}, "+")] : shown(key).map((part) => make("kbd", {}, part)));

function toggleHelp() {
  const help = byId("help");
  if (help.open) help.close();
  else help.showModal();
}

function writeHelp() {
  const line = (left, text) => make("div", { class: "key-row" }, make("dt", {}, ...left), make("dd", {}, text));
  const groups = Object.entries(actions).map(([title, list]) =>
    make("section", {}, make("h3", {}, title), make("dl", {}, ...list.map(([, key, text]) => line(caps(key), text)))),
  );
  const mouse = make("section", {}, make("h3", {}, "Mouse"), make("dl", {}, ...MOUSE.map(([what, text]) => line([what], text))));
  const single = make("input", { type: "checkbox", id: "single-keys", onchange: () => remembered.set("keys", single.checked ? null : "off") });
  single.checked = remembered.get("keys") !== "off";
  byId("help").replaceChildren(
    make("div", { class: "head" }, make("h2", { id: "help-title" }, "Keyboard and mouse"), make("button", { type: "button", onclick: toggleHelp, autofocus: true }, "Close")),
    make("div", { class: "help-columns" }, ...groups, mouse),
    make("label", { class: "check" }, single, " Single keys work (turn off where speech input or a screen reader sends them)"),
  );
}

export function start() {
  document.addEventListener("keydown", pressed);
  const keys = Object.fromEntries(Object.values(actions).flat().map(([name, key, text]) => [name, { key, text }]));
  for (const button of all("[data-key]")) {
    const { key, text } = keys[button.dataset.key];
    button.title = `${text}  (${shown(key).join(" + ")})`;
    button.setAttribute("aria-keyshortcuts", key.replace("Ctrl", "Control"));
  }
  byId("help-button").addEventListener("click", toggleHelp);
  writeHelp();
}
