"use strict";
function spark(values) {
  const low = Math.min(0, ...values), high = Math.max(0, ...values), height = high - low || 1;
  const points = values.map((value, at) => `${(100 * at) / Math.max(1, values.length - 1)},${20 - (20 * (value - low)) / height}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", `M${points.join("L")}`);
  svg.append(path);
  return svg;
}

function wordTable(title, side, rows, widest) {
  if (!rows.length) return el("div", {}, el("h3", {}, title), nothing("none"));
  return el("div", {}, el("h3", {}, title), el("table", {},
    el("thead", {}, el("tr", {}, ["word", "z-score", "in 1,000 words", "over time"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, row.word)),
      el("td", { class: "wide", title: `log-odds ${signed(row.log_odds)}` }, el("span", { class: "small quiet" }, signed(row.z, 1)), el("span", { class: `bar ${side}`, style: { width: `${(100 * Math.abs(row.z)) / widest}%` } })),
      el("td", {}, `${Math.round(row.per_thousand[0])} → ${Math.round(row.per_thousand[row.per_thousand.length - 1])}`), el("td", {}, spark(row.over_time)))))));
}

function words(section) {
  const able = RUNS.map((run, index) => [String(index), run.name]).filter(([index]) => RUNS[index].words);
  if (!able.length && !withoutTraces.includes(false)) return section.append(nothing(NO_TRACES));
  if (!able.length) return section.append(nothing("Fewer than two looks at traces were recorded, so that no word can be gained or lost."));
  const tables = el("div", { class: "two" }), about = el("p", {});
  const run = choice("Run", able, show);
  function show() {
    const found = RUNS[run.select.value].words, widest = Math.max(1e-9, ...[...found.gained, ...found.lost].map((row) => Math.abs(row.z)));
    const last = found.steps.length - 1;
    about.textContent = `Words that traces write more or less often at step ${found.steps[last].toLocaleString("en")} (${plural(found.traces[last], "trace")}) than at the first look, step ${found.steps[0].toLocaleString("en")} (${plural(found.traces[0], "trace")}). A z-score beyond 2 is more than chance.`;
    tables.replaceChildren(wordTable("Gained", "gained", found.gained, widest), wordTable("Lost", "lost", found.lost, widest));
  }
  section.append(el("div", { class: "controls" }, run.node), about, tables);
  const line = (name) => () => RUNS.map((one, index) => ({ one, index })).filter(({ one, index }) => one.words && !hiddenRuns.has(index)).map(({ one, index }) => {
    const kept = one.words.steps.map((_, at) => at).filter((at) => one.words[name][at] != null);
    return { label: RUNS.length > 1 ? one.name : "", color: runColor(index), dash: 0, x: kept.map((at) => one.words.steps[at]), y: kept.map((at) => one.words[name][at]) };
  });
  section.append(el("div", { class: "charts", style: { marginTop: "1.5rem" } },
    chart("Words in a trace", meaning("Mean length of the sampled traces that were recorded."), line("words"), { alone: true }),
    chart("Self-repetition", meaning("Share of the word pairs that the trace had before. A rise to above a third is a loop."), line("repetition"), { alone: true }),
    chart("Likeness to the first traces", meaning("Shared words with the first trace for the same question: 1 is the same trace."), line("likeness"), { alone: true })));
  show();
}
