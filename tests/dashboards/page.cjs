// A browser that a test steers by lines: a JSON array in, a line "ok …" or "failed: …" out. Not a test, and it knows no page.
//
//   ["open", URL]              opens a page
//   ["see", TEXT]              waits until the page shows the text
//   ["gone", TEXT]             waits until it does not
//   ["count", TEXT]            says how often it stands in the visible text
//   ["shot", FILE, W, H]       writes a picture of the whole page at that size
//   ["elsewhere"]              says which other machines the page has asked for anything
'use strict';
const { createRequire } = require('module');
const { chromium } = createRequire(process.env.ROENTGEN_BROWSER + '/')('playwright-core');
const readline = require('readline');

const PATIENCE = 60000;

async function main() {
    const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', chromiumSandbox: false });
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, locale: 'en-GB' });
    const elsewhere = new Set();
    page.on('request', request => {
        const url = new URL(request.url());
        if (/^(https?|wss?):$/.test(url.protocol) && url.hostname !== '127.0.0.1') elsewhere.add(url.hostname);
    });
    const shows = (text, wanted) => page.waitForFunction(
        ([text, wanted]) => document.body.innerText.includes(text) === wanted, [text, wanted], { timeout: PATIENCE });
    const orders = {
        open: url => page.goto(url, { timeout: PATIENCE }),
        see: text => shows(text, true),
        gone: text => shows(text, false),
        count: text => page.evaluate(text => document.body.innerText.split(text).length - 1, text),
        shot: async (path, width, height) => {
            await page.setViewportSize({ width, height });
            await page.screenshot({ path, fullPage: true });
        },
        elsewhere: () => [...elsewhere].join(' '),
    };
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const [order, ...values] = JSON.parse(line);
        try {
            const answer = await orders[order](...values);
            console.log('ok', typeof answer === 'object' ? '' : answer ?? '');
        } catch (error) {
            const text = await page.evaluate(() => document.body.innerText).catch(() => '');
            console.log(JSON.stringify(`failed: ${line}: ${error.message.split('\n')[0]}; the page shows: ${text}`));
        }
    }
    await browser.close();
}

main().catch(error => {
    console.log(JSON.stringify(`failed: ${error.message}`));
    process.exit(1);
});
