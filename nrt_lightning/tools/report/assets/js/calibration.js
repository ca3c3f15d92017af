"use strict";
const SIGNAL_TITLES = { agreement: "agreement of sampled answers", confidence: "probability of its own answers" };

function calibrationPart(section) {
  const able = RUNS.map((run, index) => ({ run, index })).filter(({ run }) => run.calibration);
  if (!able.length) return section.append(nothing("Not measured. nrt_lightning.SelfAssessment under trainer.callbacks measures it at validations."));
  const measured = able.filter(({ run }) => Object.keys(run.calibration.curves).length);
  section.append(el("p", {}, "Whether the policy is right as often as its sampled answers agree, and how much more often if it may leave out questions it is unsure of."),
    nothing(able.map(({ run }) => `${run.name}: ${plural(run.calibration.count, "row")} at step ${run.calibration.step.toLocaleString("en")}`).join("; ") + ". Few rows give rough curves."));
  if (!measured.length) return section.append(nothing("The rows have no known answer, so that agreement cannot be compared with correctness."));
  const lines = (kind, x, y) => () => measured.flatMap(({ run, index }) => Object.entries(run.calibration.curves).map(([signal, curve], at) => ({
    label: [RUNS.length > 1 ? run.name : null, SIGNAL_TITLES[signal]].filter(Boolean).join(" · "), color: RUNS.length > 1 ? runColor(index) : runColor(at), dash: RUNS.length > 1 ? at : 0, points: true, x: curve[kind].map((point) => point[x]), y: curve[kind].map((point) => point[y]) })));
  const unit = { alone: true, plain: true, xRange: () => [-0.02, 1.02], yRange: () => [-0.02, 1.02] };
  const diagonal = () => [{ label: "perfect", color: "--quiet", dash: 2, points: false, x: [0, 1], y: [0, 1] }];
  section.append(el("div", { class: "charts" },
    chart("Calibration", meaning("Fraction right, by how sure the policy is. On the diagonal it is as sure as it is right."), () => [...lines("bins", 0, 1)(), ...diagonal()], unit),
    chart("Risk and coverage", meaning("Fraction right among the surest rows, by the fraction of rows that is answered."), lines("coverage", 0, 1), unit)));
  for (const { run } of able) {
    const rows = run.calibration.rows.map((row) => ({ cells: [row.id, el("span", { class: "said" }, row.answer), figure(row.agreement, 2), figure(row.confidence, 2), row.right == null ? "–" : row.right ? "right" : "wrong"] }));
    section.append(el("details", {}, el("summary", {}, `${rows.length < run.calibration.count ? `The first ${rows.length} rows` : "Rows"} of ${run.name}`), table(["row", "majority answer", "agreement", "probability", "answer is"], rows)));
  }
}
