"use strict";
const PAGE = 12;

function marked(text, query) {
  if (!query) return [text];
  const parts = [], lower = text.toLowerCase();
  if (lower.length !== text.length) return [text]; // letters that change their length
  let start = 0;
  for (let at = lower.indexOf(query); at >= 0 && parts.length < 400; at = lower.indexOf(query, start)) {
    parts.push(text.slice(start, at), el("mark", {}, text.slice(at, at + query.length)));
    start = at + query.length;
  }
  return [...parts, text.slice(start)];
}

function ownAnswer(trace, query, title = "own answer") {
  return el("dl", { style: { marginTop: ".5rem" } }, el("dt", {}, title), el("dd", { class: trace.own_answer == null ? "quiet small" : "said" }, trace.own_answer == null ? trace.own_answer_note || "not written" : marked(trace.own_answer, query)));
}

function traceBlock(trace, query) {
  const says = trace.right == null ? null : el("b", { class: trace.right ? "good" : "bad" }, trace.right ? "✓ right" : "✗ wrong");
  const fact = (name, value) => el("span", {}, `${name} `, el("b", {}, value));
  const ends = trace.marker_emitted == null ? null : el("span", { class: trace.marker_emitted ? "" : "watch" }, trace.marker_emitted ? "marker emitted" : "marker forced");
  const confidence = trace.confidence == null ? null : fact("confidence", figure(trace.confidence));
  if (trace.text == null) return el("div", { class: "one" }, el("div", { class: "figures" }, says, confidence), ownAnswer(trace, query));
  return el("div", { class: "one" },
    el("div", { class: "figures" }, el("b", {}, `${trace.kind || "a"} trace`), says,
      trace.reward == null ? null : fact("reward", figure(trace.reward)), trace.gain == null ? null : fact("gain", signed(trace.gain, 3)),
      confidence, ends,
      trace.cut ? el("span", { class: "watch" }, "cut at the limit") : null,
      trace.trace_tokens == null ? null : el("span", {}, plural(trace.trace_tokens, "token"))),
    el("div", { class: "said text", tabindex: "0", role: "region", "aria-label": "Trace" }, marked(trace.text, query), trace.text ? null : "(empty trace)"),
    ownAnswer(trace, query));
}

function card({ run, sample }, query, wanted) {
  return el("article", { class: "sample" },
    el("div", { class: "top" }, RUNS.length > 1 ? el("span", {}, RUNS[run].name) : null, el("span", {}, `step ${sample.step.toLocaleString("en")}`), el("span", {}, sample.split === "val" ? "validation" : "training"), el("span", {}, sample.id)),
    el("dl", {}, el("dt", {}, "question"), el("dd", { class: "said" }, marked(sample.question, query)), el("dt", {}, "reference answer"), el("dd", { class: "said" }, marked(sample.reference, query)),
      sample.baseline_confidence == null ? null : [el("dt", {}, "without a trace"), el("dd", {}, `confidence ${figure(sample.baseline_confidence)}`)]),
    sample.traces.filter(wanted).map((trace) => traceBlock(trace, query)));
}

function samples(section) {
  const all = RUNS.flatMap((run, index) => run.samples.map((sample) => ({ run: index, sample, text: [sample.question, sample.reference, sample.id, ...sample.traces.flatMap((trace) => [trace.text ?? "", trace.own_answer ?? ""])].join("\n").toLowerCase() })));
  if (!all.length) return section.append(nothing("No samples were found. nrt_lightning.TraceSamples under trainer.callbacks writes them."));
  all.sort((a, b) => withoutTraces[a.run] - withoutTraces[b.run] || b.sample.step - a.sample.step || a.run - b.run);
  let shown = PAGE;
  const steps = [...new Set(all.map((entry) => entry.sample.step))].sort((a, b) => b - a);
  const kinds = new Set(all.flatMap((entry) => entry.sample.traces.map((trace) => trace.kind)));
  const some = (values, options) => [["", "all"], ...options.filter(([value]) => values(value))];
  const again = () => { shown = PAGE; show(); };
  const search = el("input", { type: "search", id: "search", placeholder: "question, trace or answer", oninput: again, autocomplete: "off" });
  const run = choice("Run", [["", "all"], ...RUNS.map((one, index) => [String(index), one.name])], again);
  const split = choice("Rows", some((value) => all.some((entry) => entry.sample.split === value), [["val", "validation"], ["train", "training"]]), again);
  const step = choice("Step", [["", "all"], ...steps.map((one) => [String(one), one.toLocaleString("en")])], again);
  const kind = choice("Trace", some((value) => kinds.has(value), [["greedy", "greedy"], ["best", "best of the group"], ["worst", "worst of the group"], ["answer", "none"]]), again);
  const right = choice("Own answer", some((value) => withoutTraces.includes(false) || value === "right" || value === "wrong", [["right", "right"], ["wrong", "wrong"], ["cut", "trace cut"], ["forced", "marker forced"]]), again);
  run.node.hidden = RUNS.length < 2;
  for (const made of [split, kind]) made.node.hidden = made.select.length < 3;
  const count = el("p", { class: "quiet small", role: "status" }), list = el("div", { class: "cards" });
  const more = el("button", { type: "button", onclick: () => { shown += PAGE; show(); } }, "Show more");
  const tests = { "": () => true, right: (trace) => trace.right === true, wrong: (trace) => trace.right === false, cut: (trace) => trace.cut === true, forced: (trace) => trace.marker_emitted === false };
  function show() {
    const query = search.value.trim().toLowerCase();
    const wanted = (trace) => (!kind.select.value || trace.kind === kind.select.value) && tests[right.select.value](trace);
    const found = all.filter((entry) => (!run.select.value || String(entry.run) === run.select.value) && (!split.select.value || entry.sample.split === split.select.value)
      && (!step.select.value || String(entry.sample.step) === step.select.value) && entry.text.includes(query) && entry.sample.traces.some(wanted));
    count.textContent = found.length === all.length ? plural(all.length, "sample") : `${found.length.toLocaleString("en")} of ${plural(all.length, "sample")}`;
    list.replaceChildren(...found.slice(0, shown).map((entry) => card(entry, query, wanted)));
    more.hidden = found.length <= shown;
  }
  section.append(el("div", { class: "controls" }, el("label", {}, "Search", search), run.node, split.node, step.node, kind.node, right.node), count, list, el("p", {}, more));
  show();
}
