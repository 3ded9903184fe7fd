// How the box is: its problems at the top of every page, and all it says of itself on a page of its own.

import { byId, el, facts, fill } from "./dom.js";
import { asBytes, asMoment, asMs, asNumber, asSpan, known, t } from "./words.js";

let telemetry = null;
let connected = true;
let said = "";

export const current = () => telemetry;

// Whether the page hears from the box.
export function reach(isThere) {
  if (connected === isThere) return;
  connected = isThere;
  say();
}

export function take(news) {
  telemetry = news;
  say();
  if (!byId("box").hidden) cards();
}

// What is wrong, worst first: what the box says, and what it will only say after a while.
function problems() {
  if (!connected) return [{ code: "page_cut_off", severity: "failing", message: t("problem.page_cut_off.message"), advice: t("problem.page_cut_off.advice") }];
  if (!telemetry) return [];
  const found = [...telemetry.health.problems];
  const waits = telemetry.queue.unsent ?? 0;
  if (telemetry.engine && !telemetry.broker.connected && !found.some(({ code }) => code === "broker_away")) {
    found.push({ code: "broker_away", severity: "warning", message: telemetry.broker.error ?? "", advice: t("problem.broker_away.advice") });
  }
  return found.map((problem) => (problem.code === "broker_away" ? { ...problem, more: t("broker.waiting", { n: asNumber(waits) }) } : problem));
}

function lamp(id, state, text) {
  const found = byId(id);
  found.dataset.state = state;
  if (found.textContent !== text) found.textContent = text;
}

function say() {
  lamp("live", connected ? "good" : "bad", t(connected ? "live.on" : "live.off"));
  if (telemetry) {
    const { broker, queue } = telemetry;
    const waits = queue.unsent ? ` · ${t("broker.queue", { n: asNumber(queue.unsent) })}` : "";
    lamp("broker", !connected ? "wait" : broker.connected ? "good" : "bad", t(broker.connected ? "broker.on" : "broker.off") + waits);
  }
  const found = problems();
  const trouble = byId("trouble");
  trouble.hidden = found.length === 0;
  trouble.textContent = found.length ? t("nav.trouble", { n: found.length }) : "";
  // Spoken again only where it is news.
  const text = JSON.stringify(found);
  if (text === said) return;
  said = text;
  fill(byId("problems"), found.map(({ code, severity, message, advice, more }) =>
    el("div", { class: "problem", "data-severity": severity, "data-code": code },
      el("p", { class: "title" }, el("span", { "aria-hidden": "true", text: severity === "failing" ? "✖ " : "⚠ " }), known(`problem.${code}`, message)),
      known(`problem.${code}`, null) && message && el("p", { text: message }),
      more && el("p", { text: more }),
      el("p", { class: "advice", text: advice }))));
}

function card(title, ...content) {
  return el("section", { class: "card" }, el("h3", { text: title }), content);
}

// A bar of how much of something is taken, with the words for it.
function gauge(name, free, whole) {
  const meter = el("meter", { min: 0, max: whole, low: whole * 0.05, high: whole * 0.1, optimum: whole, value: free, "aria-label": name });
  return [meter, " ", t("box.free", { free: asBytes(free), whole: asBytes(whole) })];
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
const counted = (counts, prefix) =>
  Object.entries(counts).filter(([, n]) => n > 0).map(([code, n]) => [known(`${prefix}.${code}.short`, known(`${prefix}.${code}`, code)), asNumber(n)]);

export function cards() {
  if (!telemetry) return fill(byId("box-cards"), el("p", { class: "hint", text: t("box.wait") }));
  const { engine, queue, broker, heat, disks, memory, clock, counts, latency_ms: latency, intake, dicom, camera, results, update, reload } = telemetry;
  const reported = sum(counts.reported) + counts.abstained;
  return fill(byId("box-cards"),
    card(t("box.health"), el("p", { class: "lamp", "data-state": telemetry.health.healthy ? (telemetry.health.problems.length ? "wait" : "good") : "bad" },
      t(telemetry.health.healthy ? (telemetry.health.problems.length ? "box.warned" : "box.well") : "box.unwell")),
      facts([
        [t("box.device"), telemetry.device], [t("box.version"), telemetry.version], [t("box.uptime"), asSpan(telemetry.uptime_s)],
        [t("box.intake"), intake.open ? t("box.intake.open") : intake.reason],
      ])),
    card(t("box.queue"), facts([
      [t("box.incoming"), queue.incoming !== undefined && asNumber(queue.incoming)],
      [t("box.unsent"), queue.unsent !== undefined && asNumber(queue.unsent)],
      [t("box.outbox"), queue.outbox_bytes !== undefined && asBytes(queue.outbox_bytes)],
    ])),
    card(t("box.broker"), el("p", { class: "lamp", "data-state": broker.connected ? "good" : "bad", text: t(broker.connected ? "broker.on" : "broker.off") }),
      facts([[t("box.connections"), asNumber(broker.connections)], [t("box.error"), broker.error], [t("box.published"), asNumber(counts.published)], [t("box.dropped"), counts.dropped > 0 && asNumber(counts.dropped)]])),
    card(t("box.disk"), facts(Object.entries(disks).map(([name, { free_bytes: free, total_bytes: whole }]) => [known(`box.disk.${name}`, name), gauge(name, free, whole)]))),
    card(t("box.heat"), heat.zones.length ? facts(heat.zones.map(({ name, celsius }) => [name, t("unit.celsius", { n: celsius.toFixed(0) })])) : el("p", { class: "hint", text: t("box.heat.none") }),
      heat.throttled === true && el("p", { class: "warn", text: t("box.throttled") })),
    card(t("box.clock"), facts([[t("box.time"), asMoment(telemetry.at)], [t("box.clock.state"), t(clock === "synchronised" ? "clock.yes" : "clock.no")]])),
    card(t("box.memory"), facts([[t("box.memory.own"), memory.resident_bytes && asBytes(memory.resident_bytes)], [t("box.memory.left"), memory.available_bytes && asBytes(memory.available_bytes)]])),
    engine && card(t("box.engine"), facts([
      [t("whence.model"), `${engine.model.name} ${engine.model.version}`], [t("whence.backend"), engine.backend],
      [t("box.kernel"), engine.kernel], [t("box.threads"), asNumber(engine.threads)], [t("box.fallback"), (engine.bundle_fallback ?? engine.backend_fallback)?.reason],
      latency && [t("box.latency"), t("box.latency.value", { p50: asMs(latency.total.p50), p99: asMs(latency.total.p99), n: asNumber(latency.window) })],
    ].filter(Boolean))),
    card(t("box.counts"), facts([[t("box.reports"), asNumber(reported)], ...counted(counts.reported, "label"), [t("status.abstained"), asNumber(counts.abstained)], [t("box.repeated"), counts.repeated > 0 && asNumber(counts.repeated)], [t("box.last"), telemetry.last_report_at && asMoment(telemetry.last_report_at)]])),
    sum(counts.reasons) > 0 && card(t("box.reasons"), facts(counted(counts.reasons, "reason"))),
    sum(counts.rejected) > 0 && card(t("box.rejected"), facts(counted(counts.rejected, "refusal"))),
    dicom && card(t("box.dicom"), facts([[t("box.listening"), dicom.listening ?? dicom.error], [t("box.stored"), asNumber(dicom.stored)], [t("box.refused"), asNumber(sum(dicom.refused))]])),
    camera && card(t("box.camera"), facts([[t("box.camera.mode"), camera.mode ?? camera.reason], [t("box.films"), asNumber(camera.films)], [t("box.complaint"), camera.complaint]])),
    results && card(t("box.results"), facts([[t("box.unsent"), asNumber(results.waiting)], [t("box.published"), asNumber(results.sent)], [t("box.error"), results.error]])),
    (update || reload) && card(t("box.changes"), facts([
      update && [t("box.update"), `${update.what}: ${update.message} (${asMoment(update.at)})`],
      reload && [t("box.reload"), `${reload.refused ?? t("box.reload.taken")} (${asMoment(reload.at)})`],
    ].filter(Boolean))),
  );
}
