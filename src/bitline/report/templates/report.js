"use strict";
(() => {
  // a table that is wider than its place says so
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) target.classList.toggle("overflows", target.scrollWidth > target.clientWidth + 1);
  });
  for (const place of document.querySelectorAll(".scroll")) sizes.observe(place);

  // paper cannot unfold
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const item of folded) item.open = true;
  });
  addEventListener("afterprint", () => {
    for (const item of folded) item.open = false;
  });

  const value = (row, column) => {
    const cell = row.cells[column];
    const sort = cell.dataset.sort;
    return sort === undefined ? null : isNaN(sort) || sort === "" ? sort : Number(sort);
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) =>
      head.querySelector("button").addEventListener("click", () => {
        // figures: largest first, then smallest first, then as in the network
        const orders = head.classList.contains("n") ? ["descending", "ascending"] : ["ascending", "descending"];
        const next = orders[orders.indexOf(head.getAttribute("aria-sort")) + 1];
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (!next) return body.append(...original);
        head.setAttribute("aria-sort", next);
        const known = original.filter((row) => value(row, column) !== null);
        const unknown = original.filter((row) => value(row, column) === null);
        known.sort((a, b) => compare(value(a, column), value(b, column)) * (next === "descending" ? -1 : 1));
        body.append(...known, ...unknown);
      }),
    );
  }
})();
