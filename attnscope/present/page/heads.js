function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key === "style") element.style.cssText = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
function number(value) {
  if (value === null || value === undefined) return "—";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size > 0 && size < 0.001) return value.toPrecision(2);
  const digits = size < 1 ? 3 : size < 10 ? 2 : size < 1000 ? 1 : 0;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
const UNITS = { percent: "%", nat: " nat", token: " tok" };
const SIGNS = { ">=": "≥", "<=": "≤" };
const percent = (value) => `${Math.max(0, Math.min(1, value)) * 100}%`;

function chip(all, label) {
  const style = all.labels[label];
  return make("span", { class: `chip l-${label}` }, make("span", { class: "mark" }, style.mark), style.title);
}
function scoreRow(all, head, i, threshold) {
  const score = all.scores[i];
  const row = make("div", { class: threshold === undefined ? "score" : "score hit", title: score.meaning });
  row.append(make("span", { class: "n" }, score.title));
  const value = head.v[i];
  if (value === null) {
    row.append(make("span", { class: "none" }, `not measured: ${all.reasons[head.x[i]] ?? "no reason given"}`));
    return row;
  }
  const low = head.lo[i];
  const high = head.hi[i];
  const top = score.share ? 1 : Math.max(all.top[i], 1e-9);
  const bottom = all.bottom[i];
  const at = (number) => (number - bottom) / (top - bottom);
  const from = at(Math.min(value, 0));
  const track = make("span", { class: "track" }, make("span", { style: `left:${percent(from)};width:${percent(at(Math.max(value, 0)) - from)}` }));
  if (bottom < 0) track.append(make("b", { style: `left:${percent(at(0))}`, title: "0" }));
  if (low !== null) track.append(make("u", { style: `left:${percent(at(low))};width:${percent(at(high) - at(low))}` }));
  if (threshold !== undefined) track.append(make("s", { style: `left:${percent(at(threshold))}`, title: `rule: ${threshold}` }));
  const interval = low === null ? "" : `${number(low)} – ${number(high)}`;
  row.append(track, make("span", { class: "v" }, number(value) + (UNITS[score.units] ?? "")), make("span", { class: "ci" }, interval));
  return row;
}
function why(all, label) {
  const item = make("li", {}, chip(all, label.name), make("br"));
  if (label.score === null) {
    item.append(`No rule holds: ${all.labels[label.name].meaning}`);
    return item;
  }
  item.append(`${label.score} ${number(label.value)} ${SIGNS[label.comparison] ?? label.comparison} ${label.threshold} · rule ${label.rule} · `);
  item.append(label.url ? make("a", { href: label.url, rel: "noreferrer" }, `arXiv ${label.citation}`) : label.citation || "definition");
  return item;
}
function bars(title, values, ends, label) {
  if (!values) return [];
  const top = Math.max(...values, 1e-9);
  const list = values.map((value, i) => make("div", { style: `height:${percent(value / top)}`, title: `${ends[i] ?? i}: ${(100 * value).toFixed(1)} %` }));
  const shown = [ends[0] ?? "0", ends[ends.length - 1] ?? String(values.length - 1)];
  return [
    make("h4", {}, title),
    make("div", { class: `bars l-${label}`, role: "img", "aria-label": `${title}, largest ${(100 * top).toFixed(1)} percent` }, ...list),
    make("div", { class: "ends" }, make("span", {}, shown[0]), make("span", {}, `tallest ${(100 * top).toFixed(0)} %`), make("span", {}, shown[1])),
  ];
}
function panel(all, index) {
  const head = all.heads[index];
  const limits = new Map();
  for (const rule of all.rules) limits.set(rule.score, rule.threshold);
  const parts = [
    make("h3", {}, head.name),
    make("p", { class: "sub" }, `Layer ${head.layer}, query head ${head.head}, KV head ${head.kv}: ${head.role} cache (${head.reason})`),
    make("ul", { class: "why" }, ...head.labels.map((label) => why(all, label))),
  ];
  const label = head.labels[0].name;
  parts.push(...bars("Attention by distance, tokens", all.distance?.[index], all.bins, label));
  parts.push(...bars("Attention received, first positions", all.received?.[index], [], label));
  parts.push(make("p", { class: "sub reading" }, "Thin line: interval over prompts. Upright tick: the threshold of a rule."));
  let family = null;
  all.scores.forEach((score, i) => {
    if (score.family !== family) parts.push(make("h4", {}, (family = score.family)));
    parts.push(scoreRow(all, head, i, limits.get(score.name)));
  });
  return parts;
}

data.then((all) => {
  const place = $("#head");
  const cells = $$(".cell");
  const tip = make("div", { id: "tip", hidden: "" });
  document.body.append(tip);
  function select(index, move = false) {
    $$(".cell[aria-selected=true]").forEach((cell) => { cell.setAttribute("aria-selected", "false"); cell.tabIndex = -1; });
    cells[index].setAttribute("aria-selected", "true");
    cells[index].tabIndex = 0;
    if (move) cells[index].focus();
    place.replaceChildren(...panel(all, index));
    place.scrollTop = 0;
  }
  const byName = new Map(all.heads.map((head, i) => [head.name, i]));
  cells.forEach((cell, i) => {
    cell.addEventListener("click", () => { select(i); history.replaceState(null, "", `#${all.heads[i].name}`); });
    cell.addEventListener("pointerenter", () => {
      const head = all.heads[i];
      const lines = head.labels.map((label) => all.labels[label.name].title + (label.score ? ` (${label.score} ${number(label.value)})` : ""));
      tip.replaceChildren(make("b", {}, head.name), lines.join(", "));
      tip.hidden = false;
      const box = cell.getBoundingClientRect();
      tip.style.left = `${Math.min(box.left + scrollX, document.documentElement.clientWidth - tip.offsetWidth - 12)}px`;
      tip.style.top = `${box.bottom + scrollY + 8}px`;
    });
    cell.addEventListener("pointerleave", () => { tip.hidden = true; });
    cell.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -all.width, ArrowDown: all.width }[event.key];
      if (step && cells[i + step]) { event.preventDefault(); select(i + step, true); }
    });
  });
  $$(".legend button").forEach((button) => button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    $$(".legend button").forEach((other) => other.setAttribute("aria-pressed", "false"));
    button.setAttribute("aria-pressed", String(on));
    const label = button.dataset.label;
    cells.forEach((cell, i) => cell.classList.toggle("hit", all.heads[i].labels.some((item) => item.name === label)));
    $(".grid").classList.toggle("faded", on);
  }));
  $$("[data-head]").forEach((link) => link.addEventListener("click", () => {
    select(byName.get(link.dataset.head));
    $("#heads").scrollIntoView();
  }));
  $("[data-figure=scores]").addEventListener("drawn", (event) => {
    event.target.on("plotly_click", (click) => select(click.points[0].y * all.width + click.points[0].x));
  }, { once: true });
  select(byName.get(decodeURIComponent(location.hash.slice(1))) ?? all.start);
}).catch((error) => { $("#head").textContent = `The head panel could not be read: ${error.message}.`; });
