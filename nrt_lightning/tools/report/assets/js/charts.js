"use strict";
const AXES = { step: "optimizer steps", prompts: "prompts", rollouts: "rollouts", seconds: "seconds" };
const DASHES = [[], [6, 4], [2, 3], [10, 4, 2, 4]];
const DASH_NAMES = ["solid", "dashed", "dotted", "dashed"];
const RATE = /exact_match|checked_match|marker_rate|_share$|zero_variance|agreement|Exact match/;
const plots = []; // each redraws itself
const hiddenRuns = new Set();
let axisName = "step";

const compact = (value) => (value == null ? "" : Math.abs(value) >= 10000
  ? Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value)
  : String(+value.toPrecision(4)));

// lines: [{label, color (a CSS variable), dash, x: [], y: []}]
function chart(title, meaning, lines, settings = {}) {
  const legend = el("ul", { class: "legend" });
  const holder = el("div", { class: "plot", role: "img" });
  const node = el("figure", {}, el("figcaption", {}, title), holder, legend, meaning);
  let plot = null;

  function legendOf(shown, data, index) {
    legend.replaceChildren(...shown.map((line, at) => {
      let value = index == null ? null : data[at + 1][index];
      for (let back = (index ?? data[0].length) - 1; value == null && back >= 0; back--) value = data[at + 1][back];
      return el("li", {}, el("span", { class: "key", style: { borderColor: `var(${line.color})`, borderTopStyle: DASH_NAMES[line.dash % 4] } }), line.label, settings.plain ? null : el("b", {}, figure(value)));
    }));
  }

  function draw() {
    const shown = lines().filter((line) => line.x.length);
    node.hidden = !shown.length;
    if (plot) plot.destroy();
    plot = null;
    if (!shown.length || !holder.clientWidth) return;
    const data = shown.length === 1 ? [shown[0].x, shown[0].y] : uPlot.join(shown.map((line) => [line.x, line.y]));
    const axis = { stroke: style("--quiet"), font: "11px system-ui, sans-serif", grid: { stroke: style("--grid"), width: 1 }, ticks: { show: false } };
    plot = new uPlot({
      width: holder.clientWidth, height: 180, legend: { show: false }, padding: [8, 12, 0, 0],
      cursor: { y: false, drag: { x: true, y: false }, sync: settings.alone ? undefined : { key: "runs" } },
      scales: { x: { time: false, range: settings.xRange }, y: { range: settings.yRange ?? yRange(title, shown) } },
      axes: [{ ...axis, size: 26, gap: 4, values: (_, ticks) => ticks.map(compact) }, { ...axis, size: 46, gap: 4, values: (_, ticks) => ticks.map(compact) }],
      series: [{}, ...shown.map((line) => ({
        stroke: style(line.color), width: 1.75, dash: DASHES[line.dash % 4], spanGaps: true,
        points: { show: line.points ?? line.y.filter((value) => value != null).length < 25, size: 5, fill: style(line.color) },
      }))],
      hooks: { setCursor: [(made) => legendOf(shown, data, made.cursor.idx)] },
    }, data, holder);
    legendOf(shown, data, null);
    holder.setAttribute("aria-label", `${title}. ` + shown.map((line) => {
      const known = line.y.filter((value) => value != null);
      return `${line.label}: from ${figure(known[0])} to ${figure(known[known.length - 1])}`;
    }).join("; "));
  }
  plots.push(draw);
  new ResizeObserver(() => { if (!plot || plot.width !== holder.clientWidth) draw(); }).observe(holder);
  return node;
}

function yRange(title, shown) {
  const rate = shown.every((line) => RATE.test(line.name ?? "")) || RATE.test(title);
  return (_, low, high) => {
    if (low == null) return [0, 1];
    if (rate && low >= 0 && high <= 1) return [-0.02, 1.02];
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    return [low >= 0 && low < high * 0.6 ? 0 : low - room, high + room];
  };
}

// The curves of the runs that are shown, over the chosen axis.
function runLines(names) {
  const found = [];
  RUNS.forEach((run, index) => {
    if (hiddenRuns.has(index)) return;
    const x = run.curves.axes[axisName];
    names.forEach((name, at) => {
      const y = run.curves.series[name];
      if (!x || !y) return;
      const kept = x.map((_, place) => place).filter((place) => y[place] != null);
      const label = [RUNS.length > 1 ? run.name : null, names.length > 1 || RUNS.length === 1 ? shortName(name, names) : null].filter(Boolean).join(" · ");
      found.push({ name, label, color: RUNS.length > 1 || names.length === 1 ? runColor(index) : runColor(at), dash: RUNS.length > 1 ? at + 2 * Math.floor(index / 6) : 0, x: kept.map((place) => x[place]), y: kept.map((place) => y[place]) });
    });
  });
  return found;
}

// What the values mean, folded.
function about(names) {
  const known = names.map((name) => [name, DATA.meanings[name]]).filter(([, value]) => value);
  if (!known.length) return null;
  return el("details", { class: "about" }, el("summary", {}, "What is this?"), known.map(([name, value]) => el("p", {}, el("code", {}, name), " ", code(value.meaning), value.healthy ? [" Healthy: ", code(value.healthy)] : null, value.action ? [" Otherwise: ", code(value.action)] : null)));
}

const shortName = (name, names) => (names.length > 1 ? name.replace(/_/g, " ").replace(/^val\/|^train\/|^rollout\//, (part) => (new Set(names.map((other) => other.split("/")[0])).size > 1 ? part.replace("/", " ") : "")) : name.replace(/_/g, " "));
const redraw = () => plots.forEach((draw) => draw());

function curves(section) {
  if (!DATA.groups.length) return section.append(nothing("No curves were logged."));
  const axes = Object.keys(AXES).filter((name) => RUNS.some((run) => run.curves.axes[name]));
  // A step of NRT and one of SFT are not the same work.
  if (RUNS.length > 1 && RUNS.every((run) => run.curves.axes.rollouts)) axisName = "rollouts";
  const axis = choice("Horizontal axis", axes.map((name) => [name, AXES[name]]), (value) => { axisName = value; redraw(); });
  axis.select.value = axisName;
  const controls = el("div", { class: "controls" }, axis.node);
  if (RUNS.length > 1) RUNS.forEach((run, index) => controls.append(el("label", { class: "check" }, el("input", { type: "checkbox", checked: true, onchange: (event) => { hiddenRuns[event.target.checked ? "delete" : "add"](index); redraw(); } }), key(index), run.name)));
  section.append(controls);
  const most = Math.max(...RUNS.map((run) => run.curves.events));
  if (most > 1) section.append(nothing(`A point is the mean of ${most} logged values.`));
  DATA.groups.forEach((group) => {
    const box = el("div", { class: "charts" }, group.charts.map(({ title, names }) => chart(title, about(names), () => runLines(names))));
    const folded = /^(How fast|Details)/.test(group.title);
    section.append(el("details", { open: !folded, ontoggle: (event) => event.target.open && redraw() }, el("summary", {}, `${group.title} · ${plural(group.charts.length, "chart")}`), box));
  });
}
