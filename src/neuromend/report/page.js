"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const find = (id) => document.getElementById(id);
  const viewer = find("viewer");

  // Copying works on every report, the viewer only where there is a lesion.
  const methods = find("methods-text");
  find("copy").addEventListener("click", async () => {
    getSelection().selectAllChildren(methods);
    let done = true;
    try {
      await navigator.clipboard.writeText(methods.textContent);
    } catch {
      done = document.execCommand("copy");
    }
    find("copied").textContent = done ? "Copied." : "Selected: press Ctrl+C.";
  });
  if (!viewer) return;

  const FLICKER_MS = 700; // each side; well below the three flashes a second that can harm
  const STEP = 5; // per cent of the width for one arrow key
  const lesions = [...viewer.querySelectorAll(".lesion")];
  const slider = find("slider");
  const flicker = find("flicker");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let split = 50; // per cent of the width that shows "before"
  let shown = 0;
  let timer = 0;

  const press = (button, on) => button.setAttribute("aria-pressed", String(on));
  const isPressed = (button) => button.getAttribute("aria-pressed") === "true";

  function sweep(to) {
    split = Math.min(100, Math.max(0, to));
    viewer.style.setProperty("--split", `${split}%`);
    const side = split === 100 ? "before" : split === 0 ? "after" : "both";
    viewer.dataset.side = side;
    slider.value = String(split);
    slider.setAttribute("aria-valuetext", side === "both" ? `${Math.round(split)} % before` : side);
    press(find("before"), side === "before" && !timer);
    press(find("after"), side === "after" && !timer);
  }

  function stopFlicker() {
    clearInterval(timer);
    timer = 0;
    press(flicker, false);
  }

  const swap = () => sweep(split === 100 ? 0 : 100);

  function toggleFlicker() {
    if (timer) {
      stopFlicker();
      sweep(0);
    } else if (still.matches) {
      swap(); // no motion by itself: every press shows the other side
    } else {
      timer = setInterval(swap, FLICKER_MS);
      press(flicker, true);
      swap();
    }
  }

  function set(to) {
    stopFlicker();
    sweep(to);
  }

  function toggle(name) {
    const button = find(`toggle-${name}`);
    if (!button) return;
    const on = !isPressed(button);
    press(button, on);
    viewer.classList.toggle(`show-${name}`, on);
    const rival = { uncertainty: "difference", difference: "uncertainty" }[name];
    if (on && rival && find(`toggle-${rival}`) && isPressed(find(`toggle-${rival}`))) toggle(rival);
  }

  function show(index) {
    shown = (index + lesions.length) % lesions.length;
    lesions.forEach((lesion, place) => lesion.classList.toggle("away", place !== shown));
    picks.forEach((pick, place) => press(pick, place === shown));
  }

  const picks = [...viewer.querySelectorAll("[data-pick]")];
  picks.forEach((pick, place) => pick.addEventListener("click", () => show(place)));
  find("before").addEventListener("click", () => set(100));
  find("after").addEventListener("click", () => set(0));
  flicker.addEventListener("click", toggleFlicker);
  slider.addEventListener("input", () => set(Number(slider.value)));
  still.addEventListener("change", () => {
    if (still.matches) stopFlicker();
  });
  for (const name of ["mask", "uncertainty", "difference"]) {
    find(`toggle-${name}`)?.addEventListener("click", () => toggle(name));
  }

  for (const cut of viewer.querySelectorAll(".stage .cut")) {
    const follow = (event) => {
      const frame = cut.getBoundingClientRect();
      set(((event.clientX - frame.left) / frame.width) * 100);
    };
    cut.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      cut.setPointerCapture(event.pointerId);
      follow(event);
    });
    cut.addEventListener("pointermove", (event) => {
      if (cut.hasPointerCapture(event.pointerId)) follow(event);
    });
  }

  const keys = {
    b: () => set(100),
    a: () => set(0),
    f: toggleFlicker,
    m: () => toggle("mask"),
    u: () => toggle("uncertainty"),
    d: () => toggle("difference"),
    n: () => show(shown + 1),
    p: () => show(shown - 1),
    ArrowLeft: () => set(split - STEP),
    ArrowRight: () => set(split + STEP),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !find("shortcuts").checked) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!Object.hasOwn(keys, key)) return;
    event.preventDefault();
    keys[key]();
  });

  show(0);
  sweep(50);
})();
