"use strict";
const MARKS = { good: "✓", watch: "▲", bad: "✕", open: "○" };
const MARK_NAMES = { good: "Good", watch: "To watch", bad: "Bad", open: "Open" };
const mark = (level) => el("span", { class: `mark ${level}` }, el("span", { "aria-hidden": "true" }, MARKS[level]), el("span", { class: "hidden" }, MARK_NAMES[level]));

function verdictCard(run, index) {
  const findings = run.findings.map((finding) => el("li", {}, mark(finding.level), el("div", {}, finding.text,
    finding.action && finding.action !== run.headline.action ? el("div", { class: "action" }, code(finding.action)) : null,
    finding.why ? el("div", { class: "why" }, code(finding.why)) : null)));
  return el("article", { class: "verdict" }, el("div", { class: "who" }, RUNS.length > 1 ? key(index) : null, el("b", {}, run.name), run.module ? el("span", {}, run.module) : null),
    el("p", { class: "says" }, mark(run.headline.level), " ", run.headline.text),
    run.headline.action ? el("p", { class: "todo" }, code(run.headline.action)) : null,
    el("ul", { class: "findings" }, findings));
}

function header() {
  const names = RUNS.map((run) => run.name);
  byId("title").textContent = names.length > 3 ? `${names.length} runs: ${names.slice(0, 3).join(", ")} …` : names.join(", ");
  document.title = `Report: ${byId("title").textContent}`;
  byId("made").textContent = `${DATA.made} · nrt-lightning ${DATA.version}`;
  const titles = { verdict: "Verdict", curves: "Curves", heat: "Answers", samples: "Samples", words: "Words", calibration: "Self-assessment", results: "Test results", settings: "Settings", environment: "Environment" };
  byId("nav").append(...Object.entries(titles).map(([id, title]) => el("a", { href: `#${id}` }, title)));
  const notes = [...DATA.notes, ...RUNS.flatMap((run) => run.notes.map((note) => (RUNS.length > 1 ? `${run.name}: ${note}` : note)))];
  if (DATA.compared) byId("verdict").append(el("p", { class: "compared" }, DATA.compared));
  byId("verdict").append(el("div", { class: "verdicts" }, RUNS.map(verdictCard)));
  if (notes.length) byId("verdict").append(el("div", { class: "notes" }, el("ul", {}, notes.map((note) => el("li", {}, note)))));
}

header();
curves(byId("curves"));
heat(byId("heat"));
samples(byId("samples"));
words(byId("words"));
calibrationPart(byId("calibration"));
results(byId("results"));
settingsTable(byId("settings"), "settings", "The settings were not recorded: there is no run.json.", true);
settingsTable(byId("environment"), "environment", "Versions were not recorded: there is no run.json.", false);
redraw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
document.documentElement.dataset.ready = "true";
