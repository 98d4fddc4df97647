"use strict";
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

async function inflate(element) {
  if (!("DecompressionStream" in window)) throw new Error("this browser cannot inflate gzip; any release since 2023 can");
  const raw = atob(element.textContent.trim());
  const bytes = Uint8Array.from(raw, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
async function embedded(id) {
  const element = document.getElementById(id);
  const packed = element.type.includes("gzip");
  return packed ? inflate(element) : element.textContent;
}
const data = embedded("data").then(JSON.parse);

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
function recolour(value, swaps) {
  if (typeof value === "string") return swaps[value] ?? value;
  if (Array.isArray(value)) return value.map((item) => recolour(item, swaps));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolour(item, swaps)]));
  }
  return value;
}

let library = null;
function plotly() {
  library ??= embedded("plotly").then((code) => {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
    return window.Plotly;
  });
  return library;
}

const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: [["toImage"]] };
async function draw(element) {
  const [all, Plotly] = await Promise.all([data, plotly()]);
  const light = all.figures[element.dataset.figure];
  const figure = isDark() ? recolour(light, all.swaps) : structuredClone(light);
  const buttons = figure.layout.updatemenus?.[0]?.buttons;
  delete figure.layout.updatemenus;
  if (buttons) figure.layout.margin.t = 16;
  await Plotly.react(element, figure.data, figure.layout, CONFIG);
  element.classList.remove("wait");
  element.dataset.drawn = isDark() ? "dark" : "light";
  if (buttons) await choices(element, buttons, Plotly);
  element.dispatchEvent(new Event("drawn"));
}
async function choices(element, buttons, Plotly) {
  const select = $(`select[data-for="${element.dataset.figure}"]`);
  if (!select.options.length) {
    for (const [i, button] of buttons.entries()) select.add(new Option(button.label, i));
    select.addEventListener("change", () => draw(element));
  }
  const [traces, layout] = buttons[select.value || 0].args;
  await Plotly.update(element, traces, layout);
}
function failed(element, error) {
  element.classList.remove("wait");
  element.textContent = `This chart could not be drawn: ${error.message}.`;
}
const drawSafely = (element) => draw(element).catch((error) => failed(element, error));

const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      drawSafely(entry.target);
    }
  },
  { rootMargin: "600px" },
);
$$(".chart").forEach((element) => watcher.observe(element));
window.addEventListener("beforeprint", () => $$(".chart.wait").forEach(drawSafely));

const redraw = () => $$(".chart[data-drawn]").forEach(drawSafely);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
$("#theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  redraw();
});
