"use strict";
const STRONG = 3; // nats at which a color is full: twenty times as likely

const visible = (text) => text.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/^ +| +$/g, (blank) => "␣".repeat(blank.length)) || "∅";

function token(text, gain, title, numbers) {
  const share = gain == null ? 0 : Math.min(1, Math.abs(gain) / STRONG);
  const color = gain == null ? "var(--middle)" : `color-mix(in oklab, var(${gain < 0 ? "--hurts" : "--helps"}) ${Math.round(100 * share)}%, var(--middle))`;
  return el("span", { class: "token", title, style: { background: color } }, visible(text), numbers ? el("small", {}, signed(gain, 1)) : null);
}

function lookOf(sample, trace) {
  const numbers = sample.tokens.length <= 40;
  const gains = trace.logprobs.map((value, at) => (value == null || sample.baseline[at] == null ? null : value - sample.baseline[at]));
  const spans = sample.tokens.map((text, at) => token(text, gains[at], `${text}: probability ${figure(Math.exp(sample.baseline[at]))} without, ${figure(Math.exp(trace.logprobs[at]))} with the trace`, numbers));
  const total = gains.reduce((sum, value) => sum + (value ?? 0), 0);
  const left = sample.tokens_left_out ? el("p", { class: "quiet small" }, `${plural(sample.tokens_left_out, "more token")} left out`) : null;
  return el("li", {},
    el("div", { class: "when" }, el("b", {}, `step ${sample.step.toLocaleString("en")}`), el("div", { class: "quiet small" }, `${signed(total)} nats${trace.kind === "greedy" ? "" : `, ${trace.kind}`}`)),
    el("div", {}, el("div", { class: "tokens", role: "img", "aria-label": `Step ${sample.step}: ${sample.tokens.map((text, at) => `${text} ${signed(gains[at], 1)}`).join(", ")}` }, spans), left),
    el("div", { class: "trace said", tabindex: "0", role: "region", "aria-label": "Trace" }, trace.text || "(empty trace)"));
}

// How sure the policy is of each token without a trace: dark for hard ones.
function hardness(sample) {
  const spans = sample.tokens.map((text, at) => {
    const chance = sample.baseline[at] == null ? null : Math.exp(sample.baseline[at]);
    return el("span", { class: "token", title: `probability ${figure(chance)} without a trace`, style: { background: "transparent", color: "var(--ink)", boxShadow: `inset 0 -${Math.round(4 * (1 - (chance ?? 1)))}px 0 var(--quiet)` } }, visible(text), sample.tokens.length <= 40 ? el("small", {}, figure(chance, 2)) : null);
  });
  return el("li", {}, el("div", { class: "when" }, el("b", {}, "no trace"), el("div", { class: "quiet small" }, `step ${sample.step.toLocaleString("en")}`)), el("div", { class: "tokens" }, spans), el("div", { class: "quiet small" }, "probability of each token; a thick line marks a hard one"));
}

function heat(section) {
  const shows = (trace) => trace.logprobs && trace.text != null;
  const usable = (sample) => sample.baseline && sample.tokens.length && sample.traces.some(shows);
  const rows = RUNS.map((run) => {
    const byRow = new Map();
    for (const sample of run.samples.filter(usable)) {
      const id = `${sample.split} ${sample.id}`;
      byRow.set(id, [...(byRow.get(id) ?? []), sample]);
    }
    const split = [...byRow.keys()].some((id) => id.startsWith("val ")) ? "val " : "";
    return new Map([...byRow].filter(([id]) => id.startsWith(split)));
  });
  const able = RUNS.map((run, index) => [String(index), run.name]).filter(([index]) => rows[index].size);
  if (!able.length && !withoutTraces.includes(false)) return section.append(nothing(NO_TRACES));
  if (!able.length) return section.append(nothing("No samples with log-probs of answer tokens were found: the method has no baseline, or TraceSamples was not among the callbacks."));
  section.append(el("p", {}, "How much likelier each token of the reference answer is after the trace than without one, over training."));
  const list = el("ol", { class: "looks" }), asked = el("div", { class: "asked" });
  const run = choice("Run", able, () => questions());
  const row = choice("Question", [], () => show());
  function questions() {
    fillChoice(row, [...rows[run.select.value]].map(([id, samples]) => [id, samples[0].question.slice(0, 70) || id]));
    show();
  }
  function show() {
    const samples = [...rows[run.select.value].get(row.select.value)].sort((a, b) => a.step - b.step);
    asked.replaceChildren(el("dl", {}, el("dt", {}, "question"), el("dd", { class: "said" }, samples[0].question), el("dt", {}, "reference answer"), el("dd", { class: "said" }, samples[0].reference)));
    list.replaceChildren(hardness(samples[0]), ...samples.flatMap((sample) => sample.traces.filter(shows).map((trace) => lookOf(sample, trace))));
  }
  const scale = el("div", { class: "scale" }, "trace hurts", el("span", { class: "ramp", role: "img", "aria-label": "Colors from orange over gray to blue" }), "trace helps", el("span", {}, `full color at ${STRONG} nats (a factor of 20); numbers are log c − log b in nats`));
  section.append(el("div", { class: "controls" }, run.node, row.node), scale, asked, list);
  questions();
}
