"use strict";
// Names come from users: they reach the page as textContent, and Plotly through `plain`.
const byId = (id) => document.getElementById(id);
const figures = JSON.parse(byId("figures").textContent);
const data = JSON.parse(byId("data").textContent);
const settings = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
// Classes as the charts have them, in the order of their first run.
const labels = new Map([...new Set(data.runs.flatMap((run) => run.classes))]
  .map((name, place) => [name, figures["class-bars"].layout.xaxis.ticktext[place]]));
const short = (name) => labels.get(name);

function made(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}
function fill(select, names, values) {
  names.forEach((name, place) => {
    const option = made("option", name);
    option.value = values ? values[place] : place;
    select.append(option);
  });
}

// Charts are drawn as they come into view.
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    const figure = figures[entry.target.dataset.figure];
    Plotly.newPlot(entry.target, figure.data, figure.layout, settings);
  }
}, { rootMargin: "300px" });
document.querySelectorAll("[data-figure]").forEach((place) => seen.observe(place));
function whenSeen(place, draw) {
  let near = false;
  new IntersectionObserver((entries, watcher) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    near = true;
    draw();
  }, { rootMargin: "300px" }).observe(place);
  return () => near && draw();
}

// Tables: a click, or Enter, on a heading sorts; again turns the order.
function sortable(table) {
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const head = button.closest("th");
    const heads = [...table.tHead.querySelectorAll("th")].filter((th) => th.querySelector("button"));
    // Two rows of headings: the cells' order is that of their left edges.
    heads.sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left);
    const column = heads.indexOf(head);
    const value = (row) => {
      const cell = row.cells[column];
      return cell.dataset.sort === undefined ? cell.textContent : cell.dataset.sort;
    };
    const rows = [...table.tBodies[0].rows];
    const words = rows.some((row) => isNaN(value(row)));
    // Words start at A, figures at the highest.
    const now = head.getAttribute("aria-sort");
    const turn = now === "none" ? (words ? 1 : -1) : (now === "ascending" ? -1 : 1);
    heads.forEach((th) => th.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return turn * (words ? x.localeCompare(y) : x - y);
    };
    table.tBodies[0].append(...rows.sort(order));
  });
}
document.querySelectorAll("table.sortable").forEach(sortable);

// Two runs, chosen.
function pairOf(level, kind, first, second) {
  for (const pair of data.pairs) {
    if (pair.level !== level || pair.kind !== kind) continue;
    if (pair.first === first && pair.second === second) return [pair, 1];
    if (pair.first === second && pair.second === first) return [pair, -1];
  }
  return [null, 1];
}
const signed = (value) => (value < 0 ? "" : "+") + value.toFixed(3);
function forest(pair, sign) {
  const places = pair.classes.map((_, place) => place);
  const trace = (shown) => {
    const some = places.filter((p) => pair.shown[p] === shown && pair.value[p] !== null);
    const color = shown ? "#0072B2" : "#8a8a8a";
    return {
      x: some.map((p) => sign * pair.value[p]), y: some, mode: "markers", type: "scatter",
      name: shown ? "shown" : "not shown after correction",
      marker: { color, size: 9, symbol: shown ? "circle" : "circle-open" },
      error_x: { type: "data", color, thickness: 2, width: 4,
        array: some.map((p) => (pair.high[p] === null ? null : pair.high[p] - pair.value[p])) },
      hoverinfo: "text",
      hovertext: some.map((p) => `${plain(pair.classes[p])}: ${signed(sign * pair.value[p])}`
        + (pair.low[p] === null ? "<br>too few photos for an interval"
          : `<br>95 % interval ${[pair.low[p], pair.high[p]].map((v) => sign * v).sort((a, b) => a - b).map(signed).join(" to ")}`)),
    };
  };
  const layout = { ...figures["class-bars"].layout, height: 110 + 24 * places.length,
    xaxis: { title: { text: "IoU, first minus second" }, zeroline: true, zerolinecolor: "#444", automargin: true },
    yaxis: { tickvals: places, ticktext: pair.classes.map(short), range: [places.length - 0.5, -0.5], automargin: true, zeroline: false } };
  Plotly.react("pair-chart", [trace(true), trace(false)], layout, settings);
}
if (byId("first")) {
  const level = () => (byId("pair-level") ? byId("pair-level").value : data.level);
  const choose = () => {
    const here = new Set(data.pairs.filter((p) => p.level === level()).flatMap((p) => [p.first, p.second]));
    const sides = [...here];
    for (const id of ["first", "second"]) {
      byId(id).replaceChildren();
      fill(byId(id), sides.map((side) => data.sides[side]), sides);
    }
    byId("second").selectedIndex = Math.min(1, sides.length - 1);
    show();
  };
  const draw = whenSeen(byId("pair-chart"), () => {
    const [pair, sign] = pairOf(level(), byId("pair-kind").value, +byId("first").value, +byId("second").value);
    if (pair) forest(pair, sign); else Plotly.purge("pair-chart");
  });
  const show = () => {
    const [pair] = pairOf(level(), byId("pair-kind").value, +byId("first").value, +byId("second").value);
    const said = pair ? pair.said : ["These two are not compared: choose two that were scored on the same photos."];
    byId("pair-said").replaceChildren(...said.map((text) => made("p", text)));
    draw();
  };
  ["first", "second", "pair-kind"].forEach((id) => byId(id).addEventListener("change", show));
  if (byId("pair-level")) byId("pair-level").addEventListener("change", choose);
  choose();
  document.querySelector("#differences details").addEventListener("toggle", () => {
    const body = byId("pairs-table").tBodies[0];
    if (body.rows.length) return;
    for (const pair of data.pairs) {
      if (pair.level !== data.level || pair.kind === "refining") continue;
      const row = made("tr");
      row.append(made("td", data.sides[pair.first], "word"), made("td", data.sides[pair.second], "word"), made("td", pair.kind, "word"));
      pair.miou.forEach((value, place) => row.append(made("td", value === null ? "" : value.toFixed(place === 3 ? 4 : 3))));
      row.append(made("td", { 1: "higher", "-1": "lower", 0: "no" }[pair.verdict], "word"));
      body.append(row);
    }
  });
}

// One run's classes and confusions.
const runNames = data.runs.map((run) => run.name);
fill(byId("bars-run"), runNames);
byId("bars-run").addEventListener("change", () => {
  const run = data.runs[byId("bars-run").value];
  ["raw", "refined"].forEach((kind, place) => {
    const empty = data.runs[0].iou.raw.map(() => null);
    const trace = figures["class-bars"].data[place];
    trace.y = run.iou[kind] || empty;
  });
  Plotly.react("chart-class-bars", figures["class-bars"].data, figures["class-bars"].layout, settings);
});
fill(byId("confusion-run"), runNames);
function kindsOf() {
  const kinds = Object.keys(data.runs[byId("confusion-run").value].confusion);
  byId("confusion-kind").replaceChildren();
  fill(byId("confusion-kind"), kinds, kinds);
}
function confusion() {
  const run = data.runs[byId("confusion-run").value];
  const matrix = run.confusion[byId("confusion-kind").value];
  const sums = matrix.map((row) => row.reduce((a, b) => a + b, 0));
  const shares = matrix.map((row, i) => row.map((pixels) => (sums[i] ? (100 * pixels) / sums[i] : null)));
  const said = matrix.map((row, i) => row.map((pixels, j) =>
    `${(shares[i][j] || 0).toFixed(1)} % of ${plain(run.classes[i])}<br>is taken for ${plain(run.classes[j])}<br>(${pixels.toLocaleString()} pixels)`));
  const names = run.classes.map(short), places = names.map((_, place) => place), few = names.length <= 24;
  const axis = { tickvals: places, ticktext: names, automargin: true, showgrid: false, zeroline: false };
  const trace = { type: "heatmap", z: shares, zmin: 0, zmax: 100, colorscale: "Cividis", hoverinfo: "text", hovertext: said,
    text: shares.map((row) => row.map((share) => (share >= 0.5 ? share.toFixed(0) : ""))), texttemplate: few ? "%{text}" : "", colorbar: { thickness: 10, title: { text: "%" } } };
  const layout = { ...figures["class-bars"].layout, height: Math.min(900, 190 + 26 * names.length),
    xaxis: { ...axis, title: { text: "predicted" }, tickangle: -50 }, yaxis: { ...axis, title: { text: "true" }, range: [names.length - 0.5, -0.5] } };
  Plotly.react("confusion-chart", [trace], layout, settings);
}
kindsOf();
const redraw = whenSeen(byId("confusion-chart"), confusion);
byId("confusion-run").addEventListener("change", () => { kindsOf(); redraw(); });
byId("confusion-kind").addEventListener("change", redraw);

// Photos: thumbnails a page at a time, full size on click.
const PAGE = 60;
let listed = [], open = 0;
function card(one, place) {
  const photo = data.photos[one.photo], button = made("button", undefined, "card"), told = made("div");
  const image = made("img");
  image.loading = "lazy";
  image.alt = `${photo.file}: truth, ${one.kinds.join(", ")}`;
  image.src = one.part + ".jpg";
  button.type = "button";
  one.why.forEach((why) => told.append(made("span", why, "tag")));
  told.append(made("br"), made("b", one.run), made("br"), made("span", photo.file), made("br"), made("span", scoresOf(one)));
  button.append(image, told);
  button.addEventListener("click", () => view(place));
  return button;
}
const scoresOf = (one) => one.kinds.map((kind) => `${kind} ${one[kind] === null ? "\u2013" : one[kind].toFixed(3)}`).join(", ")
  + (one.changed === undefined ? "" : `; refining changed ${(100 * one.changed).toFixed(1)} %`);
function list() {
  const [run, why, name] = ["photo-run", "photo-why", "photo-class"].map((id) => byId(id).value);
  const any = byId("photo-class").selectedIndex === 0;
  listed = data.cards.filter((one) => (!run || runNames[run] === one.run) && (!why || one.why.includes(why))
    && (any || data.photos[one.photo].classes.includes(name)));
  byId("photo-count").textContent = `${listed.length} of ${data.cards.length}`;
  byId("cards").replaceChildren();
  more();
}
function more() {
  const from = byId("cards").children.length;
  byId("cards").append(...listed.slice(from, from + PAGE).map((one, place) => card(one, from + place)));
  byId("more").hidden = from + PAGE >= listed.length;
}
function fullSize() {
  byId("full").setAttribute("aria-pressed", byId("panes").classList.toggle("stacked"));
}
function view(place) {
  open = (place + listed.length) % listed.length;
  const one = listed[open], photo = data.photos[one.photo];
  byId("viewer-name").textContent = photo.file;
  byId("viewer-told").textContent = `${one.run}: ${scoresOf(one)}`;
  const maps = { truth: photo.stem + "_truth.png" };
  one.kinds.forEach((kind) => { maps[kind] = `${one.part}_${kind}.png`; });
  byId("panes").replaceChildren(...Object.entries(maps).map(([name, source]) => {
    const pane = made("figure", undefined, "pane"), stack = made("div"), below = made("img");
    below.src = photo.stem + ".jpg";
    below.alt = photo.file;
    const above = made("img");
    above.src = source;
    above.alt = name;
    stack.append(below, above);
    stack.addEventListener("click", fullSize);
    pane.append(made("figcaption", name), stack);
    return pane;
  }));
  if (!byId("viewer").open) byId("viewer").showModal();
}
if (byId("cards")) {
  fill(byId("photo-run"), runNames);
  const reasons = [...new Set(data.cards.flatMap((one) => one.why))];
  fill(byId("photo-why"), reasons, reasons);
  ["photo-run", "photo-why", "photo-class"].forEach((id) => byId(id).addEventListener("change", list));
  byId("more").addEventListener("click", more);
  byId("close").addEventListener("click", () => byId("viewer").close());
  byId("full").addEventListener("click", fullSize);
  byId("earlier").addEventListener("click", () => view(open - 1));
  byId("later").addEventListener("click", () => view(open + 1));
  byId("viewer").addEventListener("keydown", (event) => {
    if (event.target.type === "range") return;
    if (event.key === "ArrowLeft") view(open - 1);
    if (event.key === "ArrowRight") view(open + 1);
  });
  byId("opacity").addEventListener("input", () => byId("panes").style.setProperty("--shown", byId("opacity").value / 100));
  list();
}
