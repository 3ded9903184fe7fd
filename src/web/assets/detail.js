// The one report that is open: what was decided and why, the probabilities against their limits, the picture where the box
// keeps one, and where all of it comes from. Decides nothing itself.

import { byId, el, facts, fill, read } from "./dom.js";
import { picture } from "./evidence.js";
import { pictured } from "./list.js";
import { asFine, asMoment, asMs, asNumber, asPercent, asWholePercent, best, decided, known, t } from "./words.js";

let about = { images: false };
let model = null;
let shown = null;

export function setup(said) {
  about = said;
}

// The limits of the model that runs; reports of another model are shown without.
export function learn(said) {
  model = said;
  if (shown) show(shown);
}

const limits = (report) => (model && model.sha256 === report.model.sha256 ? model : null);

function reason({ code, message, value, limit }) {
  const asShare = code === "low_confidence" ? asWholePercent : asFine;
  return el("li", {},
    el("p", { class: "sentence", text: known(`reason.${code}`, message) }),
    el("p", { class: "measured", text: t("reason.measured", { value: asShare(value), limit: asShare(limit) }) }),
  );
}

function decision(report) {
  const top = best(report);
  if (report.decision.status === "abstained") {
    return el("div", { class: "verdict", "data-kind": "abstained" },
      el("p", { class: "word" }, el("span", { class: "mark", "aria-hidden": "true" }), t("verdict.abstained")),
      el("p", { text: t("verdict.abstained.why") }),
      el("ul", { class: "reasons" }, report.decision.reasons.map(reason)),
    );
  }
  return el("div", { class: "verdict", "data-kind": report.decision.label },
    el("p", { class: "word" }, el("span", { class: "mark", "aria-hidden": "true" }), decided(report)),
    el("p", { text: t("verdict.reported", { p: asPercent(top.probability) }) }),
  );
}

// A point on a bar, in per cent from its left.
function tick(kind, share, title) {
  const made = el("span", { class: `tick ${kind}`, title });
  made.style.left = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  return made;
}

function bars(report) {
  const of = limits(report);
  const least = of?.min_probability > 0 ? of.min_probability : null;
  const top = best(report);
  const point = (label) => of?.operating_points?.[label]?.find((one) => one.asked === 0.95);
  const lines = report.findings.map(({ label, probability }) => {
    const fillTo = el("span", { class: "fill" });
    fillTo.style.width = `${Math.min(Math.max(probability, 0), 1) * 100}%`;
    const found = point(label);
    return el("tr", { "data-kind": label, class: label === top.label ? "best" : null },
      el("th", { scope: "row", text: t(`label.${label}`) }),
      el("td", { class: "track-cell" }, el("span", { class: "track", "aria-hidden": "true" }, fillTo,
        least !== null && tick("least", least, t("bars.least.short", { p: asWholePercent(least) })),
        found && tick("point", found.threshold, t("bars.point.short", { p: asPercent(found.threshold) })))),
      el("td", { class: "share", text: asPercent(probability) }),
    );
  });
  const points = report.findings.map(({ label }) => [label, point(label)]).filter(([, found]) => found);
  return el("section", { "aria-labelledby": "bars-title" },
    el("h3", { id: "bars-title", text: t("bars") }),
    el("table", { class: "bars" },
      el("thead", { class: "unseen" }, el("tr", {}, [t("bars.finding"), t("bars.bar"), t("bars.probability")].map((text) => el("th", { scope: "col", text })))),
      el("tbody", {}, lines)),
    el("ul", { class: "legend" },
      least !== null && el("li", {}, el("span", { class: "key least", "aria-hidden": "true" }), t("bars.least", { p: asWholePercent(least) })),
      points.length > 0 && el("li", {}, el("span", { class: "key point", "aria-hidden": "true" }), t("bars.point", {
        all: points.map(([label, found]) => t("bars.point.one", { label: t(`label.${label}`), p: asPercent(found.threshold), found: asPercent(found.sensitivity) })).join("; "),
      })),
      of === null && el("li", { text: t("bars.none") }),
    ),
  );
}

function timing({ timing_ms: ms }) {
  const steps = ["decode", "preprocess", "infer"];
  return el("section", { "aria-labelledby": "timing-title" },
    el("h3", { id: "timing-title", text: t("timing") }),
    facts([...steps.map((step) => [t(`step.${step}`), asMs(ms[step])]), [t("step.total"), asMs(ms.total)]]),
  );
}

function delivery({ sent_at: sent, undeliverable }) {
  if (undeliverable) return t("sent.never.why", { why: undeliverable });
  return sent ? t("sent.at", { time: asMoment(sent) }) : t("sent.waiting");
}

function whence(entry) {
  const { report, sequence } = entry;
  const { origin } = report;
  const unsure = report.clock !== "synchronised";
  return el("section", { "aria-labelledby": "whence-title" },
    el("h3", { id: "whence-title", text: t("whence") }),
    facts([
      [t("whence.received"), [el("time", { datetime: report.received_at, text: asMoment(report.received_at) }), unsure && el("span", { class: "warn", text: ` ⚠ ${t("clock.unsynchronised")}` })]],
      [t("whence.clock"), t(unsure ? "clock.no" : "clock.yes")],
      [t("whence.sequence"), asNumber(sequence)],
      [t("whence.sent"), el("span", { id: "delivery", text: delivery(entry) })],
      [t("whence.origin"), [t(`origin.${origin.kind}`), origin.modality, origin.view].filter(Boolean).join(" · ")],
      [t("whence.model"), `${report.model.name} ${report.model.version}`],
      [t("whence.backend"), report.backend],
      [t("whence.device"), report.device],
      [t("whence.id"), el("code", { text: report.report_id })],
      [t("whence.study"), origin.study && el("code", { text: origin.study })],
    ]),
  );
}

export function show(entry) {
  const { report, sequence } = entry;
  const before = shown;
  shown = entry;
  // Only the delivery can have changed: a slider that somebody holds stays where it is.
  if (before?.sequence === sequence && byId("delivery") && limitsOf === limits(report)) {
    byId("delivery").textContent = delivery(entry);
    return;
  }
  limitsOf = limits(report);
  fill(byId("detail"),
    el("p", { class: "back" }, el("a", { href: "#/reports", text: t("detail.back") })),
    el("h2", {}, t("detail.title", { n: asNumber(sequence) })),
    decision(report),
    el("div", { class: "pair" }, about.images && pictured(entry) && picture(report), bars(report)),
    el("div", { class: "pair" }, timing(report), whence(entry)),
    el("p", { class: "fine", text: report.notice }),
  );
}
let limitsOf = null;

export function none() {
  shown = null;
  fill(byId("detail"), el("p", { class: "hint", text: t("detail.none") }));
}

// Opens a report that may not be in the list.
export async function open(sequence, listed) {
  if (listed) return show(listed);
  try {
    show(await read(`/api/reports/${sequence}`));
  } catch {
    shown = null;
    fill(byId("detail"),
      el("p", { class: "back" }, el("a", { href: "#/reports", text: t("detail.back") })),
      el("p", { class: "hint", text: t("detail.gone", { n: sequence }) }));
  }
}

export const current = () => shown;
