"use strict";
const shown = (value) => (value == null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

function results(section) {
  const names = [...new Set(RUNS.flatMap((run) => Object.keys(run.results)))];
  if (!names.length) return section.append(nothing("No test was run. ResultsFile under trainer.callbacks tests after training."));
  const able = RUNS.map((run, index) => ({ run, index })).filter(({ run }) => Object.keys(run.results).length);
  section.append(table(["figure", ...able.map(({ run, index }) => el("span", { style: { color: RUNS.length > 1 ? `var(${runColor(index)})` : "inherit", fontWeight: 600 } }, run.name))],
    names.map((name) => ({ cells: [name.replace(/_/g, " "), ...able.map(({ run }) => figure(run.results[name]))] }))));
}

function settingsTable(section, field, empty, folded) {
  const names = [...new Set(RUNS.flatMap((run) => Object.keys(run[field])))];
  if (!names.length) return section.append(nothing(empty));
  const rows = names.map((name) => {
    const values = RUNS.map((run) => shown(run[field][name]));
    return { name: name.toLowerCase(), differs: new Set(values).size > 1, cells: [el("code", {}, name), ...values.map((value) => el("span", { class: "said" }, value))] };
  });
  const head = ["", ...RUNS.map((run) => run.name)];
  const differing = rows.filter((row) => row.differs);
  if (RUNS.length > 1 && folded) section.append(el("p", {}, differing.length ? `${plural(differing.length, "setting")} differ between the runs:` : "The runs have the same settings."), differing.length ? table(head, differing) : null);
  if (!folded) return section.append(table(head, rows));
  const holder = el("div", {}, table(head, rows));
  const search = el("input", { type: "search", placeholder: "name of a setting", oninput: () => holder.replaceChildren(table(head, rows.filter((row) => row.name.includes(search.value.trim().toLowerCase())))) });
  section.append(el("details", {}, el("summary", {}, `All ${plural(rows.length, "setting")}`), el("div", { class: "controls" }, el("label", {}, "Filter", search)), holder));
}
