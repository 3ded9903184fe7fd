// The list of reports: the newest on top, older ones page by page, new ones as they come. Not the one report that is open.

import { byId, el, fill, read } from "./dom.js";
import { asNumber, asPercent, asTime, asMoment, best, decided, t } from "./words.js";

// More rows than these are not kept in the page: the oldest go, and come again when they are asked for.
const MOST = 600;

const rows = new Map(); // sequence → { entry, item }
let next = null; // The `before` of the next page.
let total = 0;
let loaded = false;
let asked = 0; // Counts the questions: an answer to an older one is none.
let images = false;
let selected = null;

export const filter = byId("filter");
const list = byId("list");

export function setup(about) {
  images = about.images;
}

// What the filter asks for, as the box reads it.
function query() {
  const form = new FormData(filter);
  const wanted = new URLSearchParams();
  for (const name of ["label", "status"]) if (form.get(name)) wanted.set(name, form.get(name));
  const [since, until] = span(form);
  if (since) wanted.set("since", since.toISOString());
  if (until) wanted.set("until", until.toISOString());
  return wanted;
}

function span(form) {
  const now = new Date();
  const time = (name) => (form.get(name) ? new Date(form.get(name)) : null);
  switch (form.get("time")) {
    case "hour": return [new Date(now - 3600e3), null];
    case "today": return [new Date(now.getFullYear(), now.getMonth(), now.getDate()), null];
    case "week": return [new Date(now - 7 * 86400e3), null];
    case "range": return [time("from"), time("to")];
    default: return [null, null];
  }
}

// Whether a report that has just come belongs into the list.
function belongs({ report, sent_at, undeliverable }) {
  const form = new FormData(filter);
  const [since, until] = span(form);
  const received = new Date(report.received_at);
  const label = form.get("label");
  const status = form.get("status");
  if (label && report.decision.label !== label) return false;
  if (status === "unsent" && (sent_at || undeliverable)) return false;
  if (status && status !== "unsent" && report.decision.status !== status) return false;
  return !(since && received < since) && !(until && received >= until);
}

function row(entry) {
  const { sequence, report } = entry;
  const abstained = report.decision.status === "abstained";
  const top = best(report);
  const reasons = abstained ? report.decision.reasons.map((reason) => t(`reason.${reason.code}.short`)).join(", ") : null;
  const waiting = entry.undeliverable ? t("sent.never") : entry.sent_at ? null : t("sent.waiting");
  return el("a", {
    class: "row", href: `#/reports/${sequence}`, "data-kind": abstained ? "abstained" : report.decision.label,
    "aria-current": sequence === selected ? "true" : null,
  },
    images && !pictured(entry) && el("span", { class: "thumb none" }),
    images && pictured(entry) && el("img", { class: "thumb", src: `/api/images/${report.report_id}`, alt: "", loading: "lazy", width: 64, height: 64, onerror: again }),
    el("span", { class: "decision" }, el("span", { class: "mark", "aria-hidden": "true" }), decided(report)),
    el("span", { class: "why" }, reasons ?? t("row.probability", { p: asPercent(top.probability) })),
    el("span", { class: "when" }, el("time", { datetime: report.received_at, title: asMoment(report.received_at), text: asTime(report.received_at) }), ` · ${t("row.number", { n: asNumber(sequence) })}`),
    waiting && el("span", { class: "waiting", text: waiting }),
  );
}

// A picture may be written a moment after its report: of a new one it is tried.
export const pictured = ({ image, report }) => image || Date.now() - new Date(report.received_at) < 60000;

function again(event) {
  const image = event.target;
  const tries = Number(image.dataset.tries ?? 0);
  if (tries >= 3) return image.replaceWith(el("span", { class: "thumb none" }));
  image.dataset.tries = tries + 1;
  setTimeout(() => { image.src = `${image.src.split("?")[0]}?${tries + 1}`; }, 400 * (tries + 1));
}

// Puts a report into its place, or anew where it stands already.
function put(entry) {
  const found = rows.get(entry.sequence);
  if (found) {
    if (JSON.stringify(found.entry) === JSON.stringify(entry)) return;
    const hadFocus = found.item.contains(document.activeElement);
    fill(found.item, row(entry));
    found.entry = entry;
    if (hadFocus) found.item.firstChild.focus();
    return;
  }
  const item = el("li", { "data-sequence": entry.sequence }, row(entry));
  rows.set(entry.sequence, { entry, item });
  const below = [...list.children].find((other) => Number(other.dataset.sequence) < entry.sequence);
  list.insertBefore(item, below ?? null);
}

function say() {
  const state = byId("list-state");
  if (!loaded) state.textContent = t("list.loading");
  else state.textContent = rows.size > 0 ? "" : query().size > 0 ? t("list.nothing") : t("list.empty");
  byId("total").textContent = loaded ? t("list.total", { n: asNumber(total) }) : "";
  byId("older").hidden = next === null;
  byId("clear").hidden = query().size === 0;
  byId("range").hidden = new FormData(filter).get("time") !== "range";
}

// Reads the newest page. `anew`: what stands there is of another filter.
export async function refresh(anew = false) {
  const mine = ++asked;
  let page;
  try {
    page = await read(`/api/reports?${query()}`);
  } catch {
    if (mine === asked) byId("list-state").textContent = t("list.failed");
    return;
  }
  if (mine !== asked) return;
  const newest = page.reports[0]?.sequence ?? 0;
  const oldest = page.reports.at(-1)?.sequence ?? 0;
  // A gap between what stands there and what was read: begin again.
  const joined = [...rows.keys()].some((sequence) => sequence >= oldest && sequence <= newest);
  if (anew || !loaded || !joined) {
    rows.clear();
    list.replaceChildren();
    next = page.next;
  }
  total = page.total;
  for (const entry of page.reports) put(entry);
  loaded = true;
  say();
}

export async function older() {
  if (next === null) return;
  const mine = ++asked;
  const before = next;
  const wanted = query();
  wanted.set("before", before);
  const page = await read(`/api/reports?${wanted}`).catch(() => null);
  if (mine !== asked || page === null) return;
  const last = list.lastElementChild;
  for (const entry of page.reports) put(entry);
  next = page.next;
  say();
  // The button may be gone: the first of the new ones has the focus then.
  (last?.nextElementSibling?.firstChild ?? list.lastElementChild?.firstChild)?.focus();
}

// A report that has just come, or that stands there already. True where it is new.
export function take(entry) {
  const isNew = loaded && !rows.has(entry.sequence) && entry.sequence > Math.max(0, ...rows.keys());
  if (isNew) total += 1;
  if (loaded && (rows.has(entry.sequence) || belongs(entry))) {
    put(entry);
    trim();
  }
  say();
  return isNew;
}

function trim() {
  while (rows.size > MOST) {
    const last = list.lastElementChild;
    if (last.contains(document.activeElement)) return;
    rows.delete(Number(last.dataset.sequence));
    last.remove();
    next = Number(list.lastElementChild.dataset.sequence);
  }
}

// Nothing up to this sequence waits for the broker any more.
export function sent(upTo) {
  for (const { entry } of [...rows.values()]) {
    if (entry.sequence <= upTo && !entry.sent_at && !entry.undeliverable) put({ ...entry, sent_at: new Date().toISOString() });
  }
}

export function select(sequence) {
  selected = sequence;
  for (const [number, { item }] of rows) {
    if (number === sequence) item.firstChild.setAttribute("aria-current", "true");
    else item.firstChild.removeAttribute("aria-current");
  }
}

export const entry = (sequence) => rows.get(sequence)?.entry;

// The row a step further down or up from the one that has the focus, or that is open; it gets the focus.
export function step(by) {
  const here = document.activeElement.closest?.("#list li") ?? rows.get(selected)?.item;
  const there = here ? (by > 0 ? here.nextElementSibling : here.previousElementSibling) : list.firstElementChild;
  const target = there ?? here;
  target?.firstChild.focus();
  target?.scrollIntoView({ block: "nearest" });
  return target ? Number(target.dataset.sequence) : null;
}

export const focus = () => (rows.get(selected)?.item ?? list.firstElementChild)?.firstChild.focus();

filter.addEventListener("change", () => { say(); refresh(true); });
// The form is reset after the event.
filter.addEventListener("reset", () => setTimeout(() => { say(); refresh(true); filter.querySelector("select").focus(); }));
filter.addEventListener("submit", (event) => event.preventDefault());
byId("older").addEventListener("click", older);
