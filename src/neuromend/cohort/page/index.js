"use strict";
document.documentElement.classList.add("js");
const list = document.getElementById("cases");
const cases = [...list.children];
const find = document.getElementById("find");
const show = document.getElementById("show");
const order = document.getElementById("order");
const count = document.getElementById("count");
cases.forEach((item, place) => { item.place = place; item.text = item.textContent.toLowerCase(); });

function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const item of cases) {
    const state = item.dataset.state;
    const wanted = !show.value || show.value === state || (show.value === "doubtful" && state !== "passed");
    item.hidden = !(wanted && words.every((word) => item.text.includes(word)));
    shown += !item.hidden;
  }
  count.textContent = `${shown} of ${cases.length} shown`;
}

// The order in the file is "doubtful first". What has no number comes last.
function sort() {
  const key = order.value;
  const amount = (item) => (item.dataset[key] === undefined ? -Infinity : Number(item.dataset[key]));
  const compare = {
    doubt: (a, b) => a.place - b.place,
    id: (a, b) => a.dataset.id.localeCompare(b.dataset.id, undefined, { numeric: true }),
  }[key] ?? ((a, b) => amount(b) - amount(a) || a.place - b.place);
  list.append(...cases.sort(compare));
}

find.addEventListener("input", filter);
show.addEventListener("change", filter);
order.addEventListener("change", sort);
filter();
