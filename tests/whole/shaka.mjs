// A viewer in Chromium with another player than the page's: Shaka Player, put on the page's origin, since no other may
// ask. Starts, seeks far, goes back, and plays to the end. Ends with 0 and a line of JSON when all went well.
//
//     node shaka.mjs ADDRESS-OF-THE-PAGE PATH-OF-THE-MASTER-PLAYLIST

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [address, master] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
    ...["--disable-background-networking", "--disable-component-update"],
    "--autoplay-policy=no-user-gesture-required",
  ],
});
try {
  // The page's own policy would keep a foreign script out.
  const page = await browser.newPage({ bypassCSP: true });
  page.setDefaultTimeout(30_000);
  await page.goto(address);
  await page.addScriptTag({ path: createRequire(import.meta.url).resolve("shaka-player/dist/shaka-player.compiled.js") });
  await page.evaluate(async (url) => {
    const video = document.createElement("video");
    video.id = "other";
    video.muted = true;
    document.body.append(video);
    window.errors = [];
    window.gaps = [];
    window.player = new shaka.Player();
    player.addEventListener("error", (event) => errors.push(`${event.detail.code}`));
    player.addEventListener("gapjumped", () => gaps.push(video.currentTime));
    await player.attach(video);
    await player.load(url);
    await video.play();
  }, new URL(master, address).href);
  const plays = (beyond) =>
    page.waitForFunction((beyond) => document.getElementById("other").currentTime > beyond, beyond);
  const seek = (to) => page.evaluate((to) => void (document.getElementById("other").currentTime = to), to);
  await plays(1);
  const length = await page.evaluate(() => document.getElementById("other").duration);
  await seek(length * 0.7);
  await plays(length * 0.7 + 1);
  await seek(length * 0.2);
  await plays(length * 0.2 + 1);
  await seek(length - 3);
  await page.waitForFunction(() => document.getElementById("other").ended);
  const seen = await page.evaluate(() => ({
    errors,
    gaps,
    variants: player.getVariantTracks().length,
    texts: player.getTextTracks().length,
    ...player.getStats(),
  }));
  assert.deepEqual(seen.errors, []);
  console.log(JSON.stringify({ length, variants: seen.variants, texts: seen.texts, gaps: seen.gaps, stalls: seen.stallsDetected }));
} finally {
  await browser.close();
}
