// The radiograph's small copy with the evidence map over it. The map is the network's own: where its logit for a label
// lies above the mean of the other three; the same arithmetic and colours as the pictures that `classify --heatmap` writes.

import { el, fill, read } from "./dom.js";
import { asWholePercent, best, t } from "./words.js";

const LABELS = ["covid", "lung_opacity", "normal", "viral_pneumonia"];

// Side of the overlay in pixels; the browser makes it as large as the picture.
const SIDE = 224;

// The top of the scale at least, in logits, and the opacity of the greatest strength.
const LEAST_TOP = 4;
const GREATEST_ALPHA = 0.65;

// `plasma` of matplotlib (dedicated to the public domain under CC0), every 32nd colour and the last.
const PLASMA = [[13, 8, 135], [76, 2, 161], [126, 3, 168], [170, 35, 149], [204, 71, 120], [230, 108, 92], [248, 149, 64], [253, 197, 39], [240, 249, 33]];

function colour(strength) {
  const position = strength * (PLASMA.length - 1);
  const at = Math.min(Math.floor(position), PLASMA.length - 2);
  return PLASMA[at].map((from, i) => from + (PLASMA[at + 1][i] - from) * (position - at));
}

// How far a label's logit lies above the mean of the others, for every cell.
function leads({ rows, columns, logits }, label) {
  const k = LABELS.indexOf(label);
  return Array.from({ length: rows * columns }, (_, cell) => {
    const four = logits.slice(cell * 4, cell * 4 + 4);
    const own = four[k];
    return own - (four.reduce((a, b) => a + b, 0) - own) / 3;
  });
}

function between(place, count) {
  const position = Math.min(Math.max(place * count - 0.5, 0), count - 1);
  const first = Math.floor(position);
  return [first, Math.min(first + 1, count - 1), position - first];
}

function draw(canvas, map, label) {
  const { rows, columns } = map;
  const cells = leads(map, label);
  const top = Math.max(LEAST_TOP, ...cells);
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  for (let y = 0; y < SIDE; y += 1) {
    const [above, below, down] = between((y + 0.5) / SIDE, rows);
    for (let x = 0; x < SIDE; x += 1) {
      const [left, right, across] = between((x + 0.5) / SIDE, columns);
      const line = (row) => cells[row * columns + left] * (1 - across) + cells[row * columns + right] * across;
      const strength = Math.min(Math.max((line(above) * (1 - down) + line(below) * down) / top, 0), 1);
      const at = (y * SIDE + x) * 4;
      const [r, g, b] = colour(strength);
      image.data.set([r, g, b, 255 * GREATEST_ALPHA * strength ** 0.75], at);
    }
  }
  context.putImageData(image, 0, 0);
}

// The picture of a report, with what is needed to look through the map.
export function picture(report) {
  const id = report.report_id;
  const radiograph = el("img", { class: "radiograph", alt: t("picture.alt"), src: `/api/images/${id}` });
  const overlay = el("canvas", { class: "overlay", width: SIDE, height: SIDE, "aria-hidden": "true" });
  const frame = el("div", { class: "frame" }, radiograph, overlay);
  const value = el("output", { for: "opacity" });
  const opacity = el("input", { type: "range", id: "opacity", min: 0, max: 100, value: 70, step: 5, oninput: adjust });
  function adjust() {
    overlay.style.opacity = opacity.value / 100;
    value.textContent = asWholePercent(opacity.value / 100);
  }
  const of = report.decision.label ?? best(report).label;
  const label = el("select", { id: "evidence-label", onchange: () => map && draw(overlay, map, label.value) },
    LABELS.map((name) => el("option", { value: name, text: t(`label.${name}`), selected: name === of })));
  let map = null;
  const controls = el("div", { class: "controls", hidden: true },
    el("label", { for: "evidence-label", text: t("picture.label") }), label,
    el("label", { for: "opacity", text: t("picture.opacity") }), opacity, value);
  const figure = el("figure", { class: "picture" }, frame, controls, el("figcaption", { text: t("picture.caption") }));
  let tries = 0;
  radiograph.addEventListener("error", () => {
    tries += 1;
    // It may be written a moment after its report.
    if (tries <= 3) setTimeout(() => { radiograph.src = `/api/images/${id}?${tries}`; }, 400 * tries);
    else fill(figure, el("p", { class: "hint", text: t("picture.none") }));
  });
  radiograph.addEventListener("load", async () => {
    map = await read(`/api/evidence/${id}`).catch(() => null);
    if (map === null) return;
    draw(overlay, map, label.value);
    controls.hidden = false;
    adjust();
  }, { once: true });
  return figure;
}
