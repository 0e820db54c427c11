"use strict";
(() => {
  const root = document.documentElement;
  const source = document.getElementById("figures");
  const figures = source ? JSON.parse(source.textContent) : {};
  const mouse = matchMedia("(hover: hover) and (pointer: fine)").matches;
  const printedWidth = 660; // px between the margins of a portrait page

  // colours are named in the figures and defined in the style sheet, light and dark
  const paint = (item, key, style) => {
    if (Array.isArray(item)) return item.map((value) => paint(value, key, style));
    if (item && typeof item === "object")
      return Object.fromEntries(Object.entries(item).map(([name, value]) => [name, paint(value, name, style)]));
    if (typeof item === "string" && item.startsWith("--") && /color/.test(key)) return style.getPropertyValue(item).trim();
    return item;
  };

  const draw = (width) => {
    const style = getComputedStyle(root);
    for (const [key, figure] of Object.entries(figures)) {
      const layout = paint(figure.layout, "", style);
      layout.dragmode = mouse ? "zoom" : false;
      if (layout.showlegend && root.clientWidth < 480) {
        // a narrow page breaks the legend into more lines
        const entries = figure.data.filter((trace) => trace.name).length;
        layout.height += 10 * entries;
        Object.assign(layout.legend, { font: { size: 11 }, maxheight: 0.6, entrywidth: entries > 5 ? 78 : 0 });
      }
      if (width) Object.assign(layout, { width, autosize: false });
      Plotly.react("figure-" + key, paint(figure.data, "", style), layout, {
        responsive: !width,
        displaylogo: false,
        displayModeBar: mouse ? "hover" : false,
        modeBarButtons: [["toImage", "resetScale2d"]],
        plotlyServerURL: "", // by default a button would send the figure away
        toImageButtonOptions: { format: "svg", filename: key },
      });
    }
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());

  // paper is light, of its own width, and cannot unfold
  let folded = [];
  addEventListener("beforeprint", () => {
    root.dataset.print = "";
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const item of folded) item.open = true;
    draw(printedWidth);
  });
  addEventListener("afterprint", () => {
    delete root.dataset.print;
    for (const item of folded) item.open = false;
    draw();
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
