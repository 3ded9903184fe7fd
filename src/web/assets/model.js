// The model's own card, as text that a person reads, and the way to its report. The card is Markdown from a signed bundle;
// what is read of it is headings, paragraphs, lists, tables, emphasis and code, and all of it goes in as text.

import { byId, el, facts, fill } from "./dom.js";
import { asWholePercent, t } from "./words.js";

const INLINE = /(\*\*[^*]+\*\*|\*[^*]+\*|`[^`]+`)/;

// Emphasis and code within a line.
function inline(text) {
  return text.split(INLINE).map((part) => {
    if (part.startsWith("**") && part.length > 4) return el("strong", { text: part.slice(2, -2) });
    if (part.startsWith("`") && part.length > 2) return el("code", { text: part.slice(1, -1) });
    if (part.startsWith("*") && part.length > 2) return el("em", { text: part.slice(1, -1) });
    return part;
  });
}

const cells = (line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

function table(lines) {
  const [head, , ...body] = lines;
  const titles = cells(head);
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("model.table", { title: titles.filter(Boolean).join(", ") }) }, el("table", {},
    el("thead", {}, el("tr", {}, titles.map((text) => (text ? el("th", { scope: "col" }, inline(text)) : el("td"))))),
    el("tbody", {}, body.map((line) => el("tr", {}, cells(line).map((text, i) => (i === 0 ? el("th", { scope: "row" }, inline(text)) : el("td", {}, inline(text)))))))));
}

// Blocks are parted by what their lines begin with.
export function markdown(text) {
  const made = [];
  const lines = text.split("\n");
  const isStart = (line) => /^(#|- |\||\s*$)/.test(line);
  for (let at = 0; at < lines.length;) {
    const line = lines[at];
    const from = at;
    at += 1;
    const heading = /^(#{1,4}) (.*)$/.exec(line);
    if (line.trim() === "") continue;
    if (heading) {
      // The page has its own heads of the first and second order.
      made.push(el(`h${Math.min(heading[1].length + 2, 6)}`, {}, inline(heading[2])));
    } else if (line.startsWith("|")) {
      while (lines[at]?.startsWith("|")) at += 1;
      made.push(table(lines.slice(from, at)));
    } else if (line.startsWith("- ")) {
      const items = [];
      for (let item = line.slice(2); ; item = lines[at].slice(2), at += 1) {
        while (at < lines.length && !isStart(lines[at])) item += ` ${lines[at++].trim()}`;
        items.push(el("li", {}, inline(item)));
        if (!lines[at]?.startsWith("- ")) break;
      }
      made.push(el("ul", {}, items));
    } else {
      while (at < lines.length && !isStart(lines[at])) at += 1;
      made.push(el("p", {}, inline(lines.slice(from, at).join(" "))));
    }
  }
  return made;
}

let shown = null;

export async function show(model) {
  if (!model) return fill(byId("model-card"), el("p", { class: "hint", text: t("model.none") }));
  if (shown === model.sha256) return undefined;
  let card = null;
  if (model.has_card) card = await fetch("/model/card.md").then((answer) => (answer.ok ? answer.text() : null)).catch(() => null);
  shown = model.sha256;
  return fill(byId("model-card"),
    facts([
      [t("model.name"), `${model.name} ${model.version}`],
      [t("model.sha256"), el("code", { text: model.sha256 })],
      [t("model.least"), asWholePercent(model.min_probability)],
    ]),
    el("p", {}, model.has_report
      ? el("a", { class: "button", href: "/model/report.html", target: "_blank", rel: "noopener", text: t("model.report") })
      : t("model.report.none")),
    el("article", { class: "card-text" }, card === null ? el("p", { class: "hint", text: t("model.card.none") }) : markdown(card)),
  );
}
