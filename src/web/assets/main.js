// Puts the parts together: which view is shown, what comes from the box as it happens, and the keys. Shows nothing itself.

import { byId, read } from "./dom.js";
import * as box from "./box.js";
import * as detail from "./detail.js";
import * as list from "./list.js";
import * as model from "./model.js";
import * as upload from "./upload.js";
import { decided, asNumber, t } from "./words.js";

// The pause before the box is tried again, and after which a page that nobody sees stops listening: a browser has only
// six connections to one box.
const RETRY = 2000;
const UNSEEN = 60000;

// How long the box may be away before the page says so.
const PATIENCE = 4000;

let events = null;
let card = null;
let unseen = null;
let lost = null;

// #/reports, #/reports/7, #/box, #/model
function route() {
  const [, view = "reports", number] = /^#\/(reports|box|model)(?:\/(\d+))?$/.exec(location.hash) ?? [];
  for (const id of ["reports", "box", "model"]) byId(id).hidden = id !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const sequence = number ? Number(number) : null;
  document.body.classList.toggle("open", view === "reports" && sequence !== null);
  if (view === "reports") {
    list.select(sequence);
    if (sequence === null) detail.none();
    else detail.open(sequence, list.entry(sequence));
  }
  if (view === "box") box.cards();
  if (view === "model") model.show(card);
}

async function learn() {
  card = await read("/api/model").catch(() => card);
  detail.learn(card);
  if (!byId("model").hidden) model.show(card);
}

function hear(name, take) {
  events.addEventListener(name, (event) => take(JSON.parse(event.data)));
}

function connect() {
  if (events) return;
  events = new EventSource("/api/events");
  events.onopen = () => { clearTimeout(lost); lost = null; box.reach(true); list.refresh(); };
  events.onerror = () => {
    // The box ends every connection now and then: only one that does not come back is worth a word.
    lost ??= setTimeout(() => box.reach(false), PATIENCE);
    if (events?.readyState !== EventSource.CLOSED) return;
    // Refused: the session is over, or there are too many pages. The first leads to the login page.
    hangUp();
    setTimeout(() => { read("/api/about").catch(() => null); connect(); }, RETRY);
  };
  hear("report", (entry) => {
    if (list.take(entry)) byId("news").textContent = t("news", { n: asNumber(entry.sequence), decision: decided(entry.report) });
    if (detail.current()?.sequence === entry.sequence) detail.show(entry);
  });
  hear("reports", () => list.refresh());
  hear("sent", ({ up_to: upTo }) => {
    list.sent(upTo);
    const open = detail.current();
    if (open && open.sequence <= upTo && !open.sent_at && !open.undeliverable) detail.show({ ...open, sent_at: new Date().toISOString() });
  });
  hear("health", (telemetry) => {
    box.take(telemetry);
    if (telemetry.engine && telemetry.engine.model.sha256 !== card?.sha256) learn();
  });
}

function hangUp() {
  events?.close();
  events = null;
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(unseen);
  if (document.hidden) unseen = setTimeout(hangUp, UNSEEN);
  else connect();
});

// Keys work while the focus is on what they move, so that they are in nobody's way who types or speaks.
byId("main").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, .scroll")) return;
  if (byId("reports").hidden) return;
  const isWide = matchMedia("(min-width: 62rem)").matches;
  const by = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  const inDetail = event.target.closest("#detail") !== null;
  if (by && !(inDetail && event.key.startsWith("Arrow"))) {
    event.preventDefault();
    const sequence = list.step(by);
    if (sequence !== null && isWide) {
      history.replaceState(null, "", `#/reports/${sequence}`);
      route();
    }
  } else if (event.key === "Escape" && document.body.classList.contains("open")) {
    event.preventDefault();
    const open = detail.current()?.sequence;
    if (!isWide) location.hash = "#/reports";
    else list.focus(open);
    requestAnimationFrame(() => list.focus());
  }
});

// A report that was opened by a link is read from its top.
byId("list").addEventListener("click", (event) => {
  if (event.target.closest("a") && !matchMedia("(min-width: 62rem)").matches) requestAnimationFrame(() => { scrollTo(0, 0); byId("detail").focus(); });
});

byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  try {
    localStorage.setItem("roentgen-theme", root.dataset.theme);
  } catch {
    // It holds for this page then.
  }
});

addEventListener("hashchange", route);

const about = JSON.parse(byId("about").textContent);
byId("device").textContent = about.device;
if (about.device) document.title = `${about.device} · ${document.title}`;
byId("logout").hidden = !about.token;
list.setup(about);
detail.setup(about);
upload.setup(about);
connect();
list.refresh().then(route);
learn();
