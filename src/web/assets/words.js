// The page's words and how numbers and times are written. The words themselves stand in one file for each language.

const words = JSON.parse(document.getElementById("words").textContent);
export const language = document.documentElement.lang;
// Numbers and times as the reader's own country writes them, where it speaks that language.
const locale = navigator.languages.find((one) => one.split("-")[0] === language) ?? language;

// The words of a key, with values in the places of {name}.
export function t(key, values = {}) {
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

// The same where there may be none.
export const known = (key, otherwise) => words[key] ?? otherwise;

const percent = new Intl.NumberFormat(locale, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 });
const plain = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
const fine = new Intl.NumberFormat(locale, { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat(locale, { timeStyle: "medium", hourCycle: "h23" });
const moment = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

// Never 100 %: no model is certain.
export const asPercent = (share) =>
  share > 0.999 ? `> ${percent.format(0.999)}` : share > 0 && share < 0.001 ? `< ${percent.format(0.001)}` : percent.format(share);
export const asWholePercent = (share) => whole.format(share);
export const asNumber = (number) => plain.format(number);
export const asFine = (number) => fine.format(number);
export const asMs = (ms) => t("unit.ms", { n: ms < 10 ? tenth.format(ms) : plain.format(ms) });
export const asBytes = (bytes) =>
  bytes >= 1e9 ? t("unit.gb", { n: tenth.format(bytes / 1e9) }) : t("unit.mb", { n: plain.format(bytes / 1e6) });

// Today's times without the day.
export function asTime(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  return time.toDateString() === new Date().toDateString() ? clock.format(time) : moment.format(time);
}

export function asMoment(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : moment.format(time);
}

export function asSpan(seconds) {
  if (seconds < 120) return t("unit.s", { n: plain.format(seconds) });
  if (seconds < 7200) return t("unit.min", { n: plain.format(seconds / 60) });
  if (seconds < 172800) return t("unit.h", { n: plain.format(seconds / 3600) });
  return t("unit.days", { n: plain.format(seconds / 86400) });
}

// The most probable finding of a report.
export const best = (report) => report.findings.reduce((a, b) => (b.probability > a.probability ? b : a));

// What a report decided, in a word or two.
export const decided = (report) =>
  report.decision.status === "reported" ? t(`label.${report.decision.label}`) : t("status.abstained");
