// Sends radiographs into the box's drop folder, where that is allowed: dropped on the page, or chosen. A file's name stays
// in this browser; the box gives its own.

import { byId, el, fill } from "./dom.js";
import { asNumber, known, t } from "./words.js";

// How often, and how many times, is asked what became of a file.
const PAUSE = 1000;
const TIMES = 300;

const place = byId("upload");

export function setup({ upload }) {
  if (!upload) return;
  const choose = el("input", { type: "file", multiple: true, class: "unseen", id: "files", onchange: () => { all(choose.files); choose.value = ""; } });
  const said = el("ul", { id: "uploads", "aria-live": "polite" });
  fill(place, el("div", { class: "drop" }, el("label", { class: "button", for: "files", text: t("upload.choose") }), choose, el("span", { text: t("upload.drop") })), said);
  place.hidden = false;
  // The whole page takes what is dropped: who misses the field must not lose the page.
  let depth = 0;
  const over = (by) => { depth = Math.max(0, depth + by); document.body.classList.toggle("dragging", depth > 0); };
  addEventListener("dragenter", () => over(1));
  addEventListener("dragleave", () => over(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => { event.preventDefault(); depth = 0; over(0); all(event.dataTransfer.files); });
}

// One after the other: the box judges them so anyway.
async function all(files) {
  for (const file of [...files]) await one(file);
}

async function one(file) {
  const line = el("li", {}, el("strong", { text: file.name }), " ", el("span", { class: "state", text: t("upload.sending") }));
  byId("uploads").prepend(line);
  while (byId("uploads").children.length > 8) byId("uploads").lastElementChild.remove();
  const say = (kind, ...content) => { line.dataset.kind = kind; fill(line.querySelector(".state"), content); };
  let answer;
  try {
    const response = await fetch("/api/upload", { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
    if (response.status === 401) return location.assign("/login");
    answer = await response.json();
  } catch {
    return say("bad", t("upload.failed"));
  }
  if (answer.error) return say("bad", known(`upload.error.${answer.error.code}`, answer.error.message));
  say("wait", t("upload.waiting"));
  follow(answer.name, say);
  return undefined;
}

async function follow(name, say) {
  for (let time = 0; time < TIMES; time += 1) {
    await new Promise((done) => setTimeout(done, PAUSE));
    const answer = await fetch(`/api/upload/${name}`).then((response) => (response.ok ? response.json() : null)).catch(() => null);
    if (answer?.state === "rejected") return say("bad", known(`refusal.${answer.code}`, answer.message));
    if (answer?.state === "reported") return say("good", t("upload.reported"), " ", el("a", { href: `#/reports/${answer.sequence}`, text: t("row.number", { n: asNumber(answer.sequence) }) }));
    if (answer?.state === "settled") return say("good", t("upload.settled"));
  }
  return say("wait", t("upload.late"));
}
