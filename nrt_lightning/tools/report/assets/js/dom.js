"use strict";
// Texts of a run are data: they become text nodes and are never read as markup.
// Objects have no prototype, so that a setting or a figure may have any name.
const plain = (_, value) => (value && typeof value === "object" && !Array.isArray(value) ? Object.assign(Object.create(null), value) : value);
const DATA = JSON.parse(document.getElementById("data").textContent, plain);
const RUNS = DATA.runs;
const traced = (sample) => sample.traces.some((trace) => trace.text != null);
const withoutTraces = RUNS.map((run) => run.samples.length > 0 && !run.samples.some(traced)); // SFT answers at once
const byId = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name === "style") Object.assign(node.style, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const runColor = (index) => `--run-${index % 6}`;
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function figure(value, digits = 3) {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size !== 0 && size < 0.0005) return value.toExponential(1);
  if (size >= 10000) return Math.round(value).toLocaleString("en");
  return size >= 100 ? value.toFixed(1) : value.toFixed(digits);
}
const signed = (value, digits = 2) => (value == null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits));

// A labelled choice of [value, text]; null where there is nothing to choose.
function choice(label, options, onchange) {
  const select = el("select", { onchange: () => onchange(select.value) });
  for (const [value, text] of options) select.append(el("option", { value }, text));
  return { node: el("label", { hidden: options.length < 2 }, label, select), select };
}

function fillChoice(made, options) {
  const before = made.select.value;
  made.select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
  if (options.some(([value]) => value === before)) made.select.value = before;
  made.node.hidden = options.length < 2;
}

const key = (index, dash = "solid") => el("span", { class: "key", style: { borderColor: `var(${runColor(index)})`, borderTopStyle: dash } });
const meaning = (text) => el("p", { class: "meaning" }, text);
const code = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));
const NO_TRACES = "These runs write no traces: the policy answers at once.";
const nothing = (text) => el("p", { class: "quiet" }, text);

// A table of names with a column for each run.
function table(head, rows) {
  const cells = (row, tag) => row.map((cell, at) => el(at === 0 || tag === "th" ? "th" : "td", { scope: tag === "th" ? "col" : at === 0 ? "row" : null }, cell));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, el("table", {},
    el("thead", {}, el("tr", {}, cells(head, "th"))),
    el("tbody", {}, rows.map(({ cells: row, differs }) => el("tr", { class: differs ? "differs" : "" }, cells(row, "td"))))));
}
