// Looks at the dashboard of a real box as its readers do, in headless Chromium: live update, abstention, a broker that is
// away, ten thousand reports, keys alone, a phone, upload, pictures, the login page, axe-core, and no request to anywhere
// else. Started by tests/web_browser.rs, which has the box and does what this asks for by lines that begin with "@".
// Arguments name some of its parts; "bars" measures: how soon the page is painted, how soon a report is on it.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");
const installed = createRequire(path.join(process.env.ROENTGEN_BROWSER, "/"));
const { chromium } = installed("playwright-core");
const AXE = fs.readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");

const { BOX, LOCKED, TOKEN, SCREENS, FILES, REAL } = process.env;
const PATIENCE = 60000;
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Has the test do something to the box; comes back when it is done.
async function please(what) {
  process.stdout.write(`@${what}\n`);
  const { value } = await answers.next();
  assert.equal(value, "done", `${what}: ${value}`);
}

const step = (name) => process.stdout.write(`ok   ${name}\n`);

// Pages whose requests, errors and broken policies are kept.
async function open(browser, options = {}) {
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1440, height: 900 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const seen = { elsewhere: [], wrong: [] };
  page.on("request", (request) => {
    const url = request.url();
    if (![BOX, LOCKED].some((own) => url.startsWith(`${own}/`)) && !url.startsWith("blob:")) seen.elsewhere.push(url);
  });
  page.on("pageerror", (error) => seen.wrong.push(String(error)));
  page.on("console", (message) => {
    // A picture that is not there yet and a box that is away are no errors of the page.
    if (message.type() === "error" && !/Failed to load resource|ERR_/.test(message.text())) seen.wrong.push(message.text());
  });
  return { page, seen, context };
}

// Serious faults that axe-core finds, and critical ones. Of the rows of the list the first few stand for all.
async function axe(page, where) {
  await page.evaluate(AXE);
  const found = await page.evaluate(() => window.axe.run({ exclude: ["#list > li:nth-child(n+12)"] }, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
  const bad = found.violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  const said = (list) => list.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.slice(0, 4).map((node) => node.html.slice(0, 160)).join(" | ")}`);
  const minor = found.violations.filter((one) => !bad.includes(one));
  if (minor.length) process.stdout.write(`note ${where}: ${said(minor).join("; ")}\n`);
  assert.deepEqual(said(bad), [], where);
  assert.ok(found.passes.length > 10, "axe looked at something");
}

const shot = (page, name) => page.screenshot({ path: path.join(SCREENS, `dashboard-${name}.png`) });
const rows = (page) => page.locator("#list > li");
const newest = async (page) => Number(await rows(page).first().getAttribute("data-sequence"));
const row = (page, sequence) => page.locator(`#list > li[data-sequence="${sequence}"]`);
const quiet = (page) => page.waitForFunction(() => document.getElementById("list-state").textContent === "");

async function look(browser) {
  const { page, seen } = await open(browser, { colorScheme: "light" });
  await page.goto(`${BOX}/`);
  await rows(page).nth(49).waitFor();
  assert.equal(await rows(page).count(), 50);
  await page.getByText("10,000 kept on this box").waitFor();
  assert.equal(await newest(page), 10000);
  assert.equal(await page.locator("body > .notice").innerText().then((text) => text.includes("Screening aid, not a diagnosis")), true);
  await page.waitForFunction(() => document.getElementById("live").textContent === "Live");
  step("ten thousand reports: the newest fifty are there");

  for (let pages = 2; pages <= 3; pages += 1) {
    await page.getByRole("button", { name: "Show older reports" }).click();
    await rows(page).nth(pages * 50 - 1).waitFor();
  }
  assert.equal(await page.evaluate(() => document.activeElement.closest("li")?.dataset.sequence), "9900");
  const order = await rows(page).evaluateAll((items) => items.map((item) => Number(item.dataset.sequence)));
  assert.deepEqual(order, Array.from({ length: 150 }, (_, i) => 10000 - i));
  step("older reports come page by page, in order, and the focus is on the first of them");

  const first = await newest(page);
  await please("drop phantom");
  await row(page, first + 1).waitFor();
  assert.equal(await newest(page), first + 1);
  await page.waitForFunction((n) => document.getElementById("news").textContent.includes(n), "10,001");
  const live = row(page, first + 1);
  assert.match(await live.innerText(), /Not judged/);
  await live.locator("a").click();
  await page.getByRole("heading", { name: "Report 10,001" }).waitFor();
  const detail = page.locator("#detail");
  assert.match(await detail.innerText(), /gives no result for this radiograph, because:/);
  const sentences = await detail.locator(".reasons .sentence").allInnerTexts();
  assert.ok(sentences.length > 0 && sentences.every((text) => text.endsWith(".")), String(sentences));
  assert.match(await detail.innerText(), /Measured .*, limit /);
  assert.equal(await detail.locator(".bars tbody tr").count(), 4);
  await detail.locator(".tick.least").first().waitFor({ state: "attached" });
  assert.equal(await detail.locator(".tick.point").count(), 4);
  assert.match(await detail.innerText(), /Operating points: 95 in 100/);
  step("a report comes by itself; an abstention says why in plain words; limits stand on the bars");

  await page.waitForFunction(() => document.querySelector(".radiograph")?.naturalWidth > 0 && !document.querySelector(".controls").hidden);
  const inked = () => page.evaluate(() => { const c = document.querySelector(".overlay"); return c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); });
  await page.selectOption("#evidence-label", "normal");
  const normal = await inked();
  await page.selectOption("#evidence-label", "covid");
  assert.ok(normal || (await inked()), "some label has some evidence");
  await page.locator("#opacity").focus();
  for (let presses = 0; presses < 3; presses += 1) await page.keyboard.press("ArrowRight");
  assert.equal(await page.locator(".overlay").evaluate((canvas) => canvas.style.opacity), "0.85");
  step("the radiograph is shown with the evidence over it; the slider works by keys");
  if (REAL) {
    await please("drop real");
    await row(page, first + 2).waitFor();
    await row(page, first + 2).locator("a").click();
    await page.waitForFunction(() => document.querySelector(".radiograph")?.naturalWidth > 0 && !document.querySelector(".controls").hidden);
  }
  await axe(page, "reports, light");
  await shot(page, "light");

  await page.getByRole("button", { name: "Light / dark" }).click();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  await axe(page, "reports, dark");
  await shot(page, "dark");
  await page.reload();
  await rows(page).nth(40).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark", "it is remembered");
  step("light and dark without a serious fault");

  await please("broker stop");
  await page.locator('.problem[data-code="broker_away"]').waitFor();
  await page.waitForFunction(() => document.getElementById("broker").dataset.state === "bad");
  await please("drop phantom");
  await page.getByText("waiting for the broker", { exact: true }).first().waitFor();
  await page.waitForFunction(() => /Reports that wait on this box: 1/.test(document.getElementById("problems").textContent));
  await axe(page, "broker away");
  await shot(page, "broker-away");
  await page.selectOption("select[name=status]", "unsent");
  await page.waitForFunction(() => document.querySelectorAll("#list > li").length === 1);
  await please("broker start");
  await page.locator('.problem[data-code="broker_away"]').waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Show all" }).click();
  await rows(page).nth(40).waitFor();
  await page.waitForFunction(() => document.querySelectorAll("#list .waiting").length === 0);
  step("a broker that is away is said at once, reports wait visibly, and are sent when it is back");

  for (const [name, value, is] of [["label", "covid", /COVID-19/], ["status", "abstained", /Not judged/]]) {
    await page.selectOption(`select[name=${name}]`, value);
    await quiet(page);
    await page.waitForFunction(([pattern]) => [...document.querySelectorAll("#list .decision")].length > 0 && [...document.querySelectorAll("#list .decision")].every((one) => new RegExp(pattern).test(one.textContent)), [is.source]);
    await page.getByRole("button", { name: "Show all" }).click();
    await quiet(page);
  }
  await page.selectOption("select[name=time]", "range");
  await page.locator("input[name=to]").fill("2001-01-01T00:00");
  await page.getByText("No report is like this").waitFor();
  await page.getByRole("button", { name: "Show all" }).click();
  await rows(page).nth(40).waitFor();
  step("filters by label, status and time");

  // From here on no mouse.
  await page.goto(`${BOX}/#/reports`);
  await page.reload();
  await rows(page).nth(40).waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  const top = await newest(page);
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("k");
  assert.equal(await page.evaluate(() => Number(document.activeElement.closest("li").dataset.sequence)), top - 1);
  await page.getByRole("heading", { name: `Report ${(top - 1).toLocaleString("en")}` }).waitFor();
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth);
  assert.match(outline, /^solid[2-9]px/, "the focus is seen");
  for (const name of ["Reports", "Box", "Model"]) {
    await page.evaluate((text) => [...document.querySelectorAll("nav a")].find((a) => a.textContent.startsWith(text)).focus(), name);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 2, name: { Reports: "Reports", Box: "How the box is", Model: "The model that runs" }[name] }).waitFor();
  }
  step("everything by keys alone: skip link, list, pages; the focus is always seen");

  await page.getByRole("heading", { name: "What it cannot do" }).waitFor();
  await page.getByText("It screens; it does not diagnose.").waitFor();
  assert.ok((await page.locator("#model-card table").count()) >= 2);
  await axe(page, "model");
  await shot(page, "model");
  const [report] = await Promise.all([page.context().waitForEvent("page"), page.getByRole("link", { name: "Open its evaluation report" }).click()]);
  await report.waitForLoadState();
  assert.match(await report.title(), /evaluation/);
  assert.notEqual(await report.evaluate(() => getComputedStyle(document.body).maxWidth), "none", "its own styles apply");
  await report.close();
  await page.goto(`${BOX}/#/box`);
  await page.locator(".card").nth(7).waitFor();
  for (const title of ["Health", "Queue", "Broker", "Disk", "Temperature", "Clock", "Memory", "Engine"]) await page.getByRole("heading", { name: title, exact: true }).waitFor();
  await axe(page, "box");
  await shot(page, "box");
  step("model card, evaluation report and the box's health");

  await page.goto(`${BOX}/#/reports`);
  await rows(page).nth(40).waitFor();
  await page.setInputFiles("#files", [path.join(FILES, "upload.png"), path.join(FILES, "letter.txt")]);
  await page.locator('#uploads li[data-kind="bad"]').filter({ hasText: "neither DICOM nor PNG nor JPEG" }).waitFor();
  await page.locator('#uploads li[data-kind="good"]').filter({ hasText: "was reported" }).waitFor();
  await page.evaluate(() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File(["Dear colleague,"], "dropped.txt"));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  });
  await page.locator('#uploads li[data-kind="bad"]').filter({ hasText: "dropped.txt" }).waitFor();
  await axe(page, "upload");
  await shot(page, "upload");
  step("a radiograph is sent in and reported; other files, chosen or dropped, are refused at once");

  await please("daemon stop");
  await page.locator('.problem[data-code="page_cut_off"]').waitFor();
  await please("daemon start");
  await page.locator('.problem[data-code="page_cut_off"]').waitFor({ state: "detached" });
  step("a box that is away is said, and found again");
  assert.deepEqual(seen, { elsewhere: [], wrong: [] });
}

async function phone(browser) {
  const { page, seen } = await open(browser, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true, colorScheme: "dark" });
  await page.goto(`${BOX}/`);
  await rows(page).nth(40).waitFor();
  const wide = () => page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);
  assert.ok(await wide(), "nothing is wider than the phone");
  await axe(page, "phone, list");
  await shot(page, "phone-list");
  await rows(page).nth(1).locator("a").tap();
  await page.locator("#detail h2").waitFor();
  await page.waitForFunction(() => getComputedStyle(document.querySelector(".column")).display === "none");
  assert.ok(await wide(), "nothing is wider than the phone");
  await page.waitForTimeout(600);
  await axe(page, "phone, report");
  await shot(page, "phone-report");
  await page.getByRole("link", { name: "All reports" }).tap();
  await rows(page).first().waitFor();
  for (const view of ["box", "model"]) {
    await page.goto(`${BOX}/#/${view}`);
    await page.locator(`#${view} .facts`).first().waitFor();
    assert.ok(await wide(), `${view}: nothing is wider than the phone`);
  }
  assert.deepEqual(seen, { elsewhere: [], wrong: [] });
  step("a phone");
}

async function login(browser) {
  const { page, seen, context } = await open(browser);
  await page.goto(`${LOCKED}/`);
  assert.equal(new URL(page.url()).pathname, "/login");
  await axe(page, "login");
  await page.getByLabel("Token").fill("a-wrong-token-of-some-length");
  await page.keyboard.press("Enter");
  await page.getByText("That is not the token").waitFor();
  await shot(page, "login");
  await page.getByLabel("Token").fill(TOKEN);
  await page.keyboard.press("Enter");
  await page.getByText("No report yet").waitFor();
  assert.equal(await page.evaluate(() => document.cookie), "", "no script reads the session");
  const [cookie] = await context.cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, "Strict"]);
  await page.waitForFunction(() => document.getElementById("live").textContent === "Live");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.waitForURL("**/login");
  assert.equal((await page.request.get(`${LOCKED}/api/reports`)).status(), 401);
  assert.deepEqual(seen, { elsewhere: [], wrong: [] });
  step("the token is asked for, and the session is the browser's alone");
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

async function bars(browser) {
  const paints = [];
  for (let load = 0; load < 11; load += 1) {
    const { page, context } = await open(browser);
    await page.goto(`${BOX}/`);
    await rows(page).nth(49).waitFor();
    const paint = await page.evaluate(async () => {
      const first = () => performance.getEntriesByType("paint").find(({ name }) => name === "first-contentful-paint");
      while (!first()) await new Promise((done) => setTimeout(done, 10));
      return first().startTime;
    });
    paints.push(paint);
    await context.close();
  }
  const { page } = await open(browser);
  await page.goto(`${BOX}/`);
  await rows(page).nth(49).waitFor();
  await page.waitForFunction(() => document.getElementById("live").textContent === "Live");
  await page.evaluate(() => {
    window.came = {};
    new MutationObserver(() => {
      for (const item of document.querySelectorAll("#list > li")) window.came[item.dataset.sequence] ??= Date.now();
    }).observe(document.getElementById("list"), { childList: true });
  });
  const delays = [];
  for (let report = 1; report <= 20; report += 1) {
    const sequence = 10000 + report;
    await please("drop phantom");
    await row(page, sequence).waitFor();
    let entry = null;
    while (!entry?.sent_at) entry = await (await page.request.get(`${BOX}/api/reports/${sequence}`)).json();
    const came = await page.evaluate((n) => window.came[n], sequence);
    delays.push(came - Date.parse(entry.sent_at));
  }
  const worst = Math.max(...delays);
  process.stdout.write(`first contentful paint with 10 000 reports: median ${median(paints).toFixed(0)} ms, worst ${Math.max(...paints).toFixed(0)} ms of ${paints.length}\n`);
  process.stdout.write(`report on the page after its PubAck: median ${median(delays)} ms, worst ${worst} ms of ${delays.length} (below 0: before)\n`);
  assert.ok(median(paints) < 300, "first paint in less than 300 ms");
  assert.ok(worst < 200, "a report is on the page less than 200 ms after its PubAck");
}

async function main() {
  fs.mkdirSync(SCREENS, { recursive: true });
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, chromiumSandbox: false });
  try {
    const parts = { login, look, phone, bars };
    for (const part of process.argv.length > 2 ? process.argv.slice(2) : ["login", "look", "phone"]) await parts[part](browser);
  } finally {
    await browser.close();
  }
}

main().then(() => process.exit(0), (error) => {
  process.stdout.write(`FAILED ${error.stack}\n`);
  process.exit(1);
});
