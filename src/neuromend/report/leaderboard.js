"use strict";
// A click on a heading sorts its table: numbers by value (what is no number comes last), words by letter.
for (const head of document.querySelectorAll(".board th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const text = (row) => row.cells[column].textContent;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [parseFloat(text(a)), parseFloat(text(b))];
      if (Number.isNaN(x) && Number.isNaN(y)) return (down ? -1 : 1) * text(a).localeCompare(text(b));
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
      return down ? y - x : x - y;
    });
    body.append(...rows);
  });
}
