// A viewer in Chromium, who opens the first film of a torrent on the page and uses the player as people do, by its
// buttons and keys. Ends with 0 and a line of JSON about what was seen when all went well; else says what did not.
//
//     node page.mjs ADDRESS-OF-THE-PAGE NAME-OF-THE-TORRENT plays|refused|remembers|lacks|busy|busy-native

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [address, torrent, scene] = process.argv.slice(2);
/** A step: a far seek waits for the swarm, and the machine may be busy. */
const STEP_MS = 30_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
    ...["--disable-background-networking", "--disable-component-update"],
    "--autoplay-policy=no-user-gesture-required",
  ],
});
const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
page.setDefaultTimeout(STEP_MS);
const faults = [];
page.on("pageerror", (error) => faults.push(`${error}`));
page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
// What the player must never come to: a media error, which it would mend by starting anew, and a seek that nobody
// asked for, by which hls.js gets over a hole.
await page.addInitScript(() => {
  const seen = (window.seen = { emptied: 0, error: 0, seeking: 0 });
  addEventListener("DOMContentLoaded", () => {
    const video = document.getElementById("video");
    video.addEventListener("loadeddata", () => Object.assign(seen, { emptied: 0, seeking: 0 }), { once: true });
    for (const kind of Object.keys(seen)) video.addEventListener(kind, () => (seen[kind] += 1));
  });
});

/** How the player stands. */
const state = () =>
  page.evaluate(() => {
    const video = document.getElementById("video");
    const ranges = Array.from({ length: video.buffered.length }, (_, i) => [video.buffered.start(i), video.buffered.end(i)]);
    const shown = [...video.textTracks].filter((track) => track.mode === "showing");
    return {
      at: video.currentTime,
      length: video.duration,
      ended: video.ended,
      ranges,
      cues: shown.reduce((sum, track) => sum + track.cues.length, 0),
      audio: document.getElementById("audio").value,
      subtitles: document.getElementById("subtitles").value,
      failure: document.getElementById("failure").hidden ? null : document.getElementById("failure-words").textContent,
      waiting: !document.getElementById("waiting").hidden,
      dropped: video.getVideoPlaybackQuality().droppedVideoFrames,
      seen: { ...window.seen },
    };
  });

/** Waits until the film plays beyond this place, and looks whether all is as it should be there. */
async function plays(step, beyond) {
  const before = performance.now();
  await page
    .waitForFunction(([beyond]) => {
      const video = document.getElementById("video");
      const late = !document.getElementById("failure").hidden;
      return late || (!video.seeking && video.currentTime > beyond && video.currentTime < beyond + 10);
    }, [beyond])
    .catch(async (error) => assert.fail(`${step}: ${error.message}\n${JSON.stringify(await state())}`));
  const now = await state();
  assert.equal(now.failure, null, step);
  assert.equal(now.waiting, false, `${step}: it plays, and says that it waits`);
  // Two parts that nearly touch are one with a hole.
  for (let i = 1; i < now.ranges.length; i++) {
    assert(now.ranges[i][0] - now.ranges[i - 1][1] > 2, `${step}: a hole in ${JSON.stringify(now.ranges)}`);
  }
  assert(now.ranges.some(([from, to]) => from <= now.at && now.at <= to), `${step}: ${JSON.stringify(now)}`);
  steps[step] = Math.round(performance.now() - before);
}

const steps = {};

/** From the first second to the last, with everything on the way that a viewer may want. */
async function watch() {
  await plays("start", 2);
  const { length } = await state();
  await page.keyboard.press("7");
  await plays("far seek", 0.7 * length + 1);
  await page.keyboard.press("2");
  await plays("back", 0.2 * length + 1);
  const sounds = await page.locator("#audio option").allTextContents();
  await page.selectOption("#audio", "1");
  await plays("other sound", (await state()).at + 2);
  const texts = await page.locator("#subtitles option").allTextContents();
  await page.selectOption("#subtitles", "0");
  await page.waitForFunction(() =>
    [...document.getElementById("video").textTracks].some((track) => track.mode === "showing" && track.cues.length > 0),
  );
  await plays("subtitles", (await state()).at + 1);
  await page.keyboard.press("9");
  await plays("near the end", 0.9 * length + 1);
  await page.waitForFunction(() => document.getElementById("video").ended);
  const end = await state();
  assert.equal(end.failure, null);
  assert(Math.abs(end.at - length) < 0.1, `it ended at ${end.at} of ${length}`);
  // What was chosen stays chosen over seeks.
  assert.equal(end.audio, "1");
  assert.equal(end.subtitles, "0");
  assert.deepEqual(end.seen, { emptied: 0, error: 0, seeking: 3 }, "three seeks were asked for, and nothing failed");
  assert.deepEqual(faults, []);
  return { milliseconds: steps, sounds, texts, dropped: end.dropped, length };
}

/** A film that a browser cannot play. */
async function refused() {
  await page.locator("#failure").waitFor();
  const text = (id) => page.locator(id).textContent();
  return { words: await text("#failure-words"), command: await text("#failure-command") };
}

/** Opens the page anew with this in its store: texts by their keys. */
async function withStore(store) {
  await page.evaluate((store) => {
    localStorage.clear();
    for (const [key, text] of Object.entries(store)) localStorage.setItem(key, text);
    // Closing a film, or a change of its sound, writes there too: what is to be read must be the last.
    for (const name of ["setItem", "removeItem"]) Storage.prototype[name] = () => {};
  }, store);
  await page.reload();
  await page.locator("#torrents .torrent").waitFor();
}

/** A browser whose store holds what this page would never write. */
async function remembers() {
  const film = (await page.evaluate(() => location.hash)).slice(1);
  await page.goto(address);
  const opened = () =>
    page.evaluate(() => {
      const video = document.getElementById("video");
      return { volume: video.volume, muted: video.muted, ahead: document.getElementById("ahead").value };
    });
  const usual = { volume: 1, muted: false, ahead: "30" };
  const names = ["volume", "muted", "ahead", "audio", "subtitles"];
  const values = ["nonsense", "NaN", "0.5", "", null, -1, 7, 1e308, [], {}, { volume: 0.5 }];
  const choices = values.map((value) => JSON.stringify(Object.fromEntries(names.map((name) => [name, value]))));
  choices.push("nonsense", "", "null", "7", '"text"', "[]", '{"volume":1e999,"ahead":1e999}', '{"volume":');
  for (const text of choices) {
    await withStore({ "magnetfs.choices": text, "magnetfs.places": text });
    assert.deepEqual(await opened(), usual, text);
    assert.deepEqual(faults, [], text);
  }
  await withStore({ "magnetfs.choices": '{"volume":0.5,"muted":true,"ahead":120}' });
  assert.deepEqual(await opened(), { volume: 0.5, muted: true, ahead: "120" }, "what fits is taken");
  const strange = { volume: "nonsense", ahead: 0, audio: {}, subtitles: [1] };
  for (const [place, begin] of [[30, 30], ["nonsense", 0], [-5, 0], [1e9, 0]]) {
    const places = JSON.stringify({ [film]: place });
    await withStore({ "magnetfs.choices": JSON.stringify(strange), "magnetfs.places": places });
    await page.evaluate((film) => (location.hash = film), film);
    await plays(`a place of ${place}`, begin + 1);
  }
  assert.deepEqual(faults, []);
  return {};
}

/** A film of which something is left out. */
async function lacks() {
  await plays("start", 1);
  await page.locator("#left-out li").first().waitFor();
  const told = await page.locator("#left-out li").allTextContents();
  return { told };
}

/** Seconds that the daemon asks for, in the scenes in which it is busy: more than any player waits by itself. */
const BUSY_S = 4;

/** Of each kind one. A first segment is asked for beside its `init.mp4`, and given up with it before it is answered. */
const PARTS = /\/hls\/.*(\.m3u8|\/init\.mp4|\/1\.m4s)$/;

/** Answers the first requests for each address as a busy daemon does; when each was asked for, and what was read. */
async function whileBusy(parts, refusals) {
  const asked = new Map();
  const read = new Set();
  await page.route(parts, async (route) => {
    const path = new URL(route.request().url()).pathname.split("/").slice(6).join("/");
    const times = asked.get(path) ?? [];
    asked.set(path, [...times, performance.now()]);
    if (times.length >= refusals) return route.continue();
    return route.fulfill({
      status: 503,
      headers: { "Retry-After": `${BUSY_S}`, "Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store" },
      body: "this machine is busy: too many viewers at different places\n",
    });
  });
  await page.exposeFunction("wordsAre", (words) => read.add(words));
  await page.evaluate(() => {
    const [waiting, words] = ["waiting", "waiting-words"].map((id) => document.getElementById(id));
    new MutationObserver(() => waiting.hidden || window.wordsAre(words.textContent)).observe(waiting, {
      ...{ attributes: true, characterData: true, childList: true, subtree: true },
    });
  });
  return { asked, read, refusals };
}

/** A daemon that is busy for a while: nobody has to do anything, and nobody asks too soon. */
async function busy({ asked, read, refusals }) {
  await plays("beyond the second segment's begin", 10);
  const again = [...asked].filter(([, times]) => times.length > refusals);
  for (const [path, times] of again) {
    const waited = times[refusals] - times[refusals - 1];
    assert(waited >= BUSY_S * 1000, `${path} was asked for again after ${waited} ms`);
  }
  return { again: again.map(([path]) => path), read: [...read] };
}

try {
  if (scene === "busy-native") {
    await page.addInitScript(() => {
      for (const name of ["MediaSource", "ManagedMediaSource", "WebKitMediaSource"]) delete window[name];
    });
  }
  await page.goto(address);
  await page.getByRole("button", { name: torrent, exact: true }).click();
  // Without hls.js the page looks itself at what the browser was refused.
  const about = { busy: [PARTS, 1], "busy-native": [/\/master\.m3u8$/, 2] }[scene];
  const watched = about && (await whileBusy(...about));
  await page.getByRole("link", { name: /^Play / }).first().click();
  const scenes = { plays: watch, refused, remembers, lacks, busy, "busy-native": busy };
  const seen = await scenes[scene](watched);
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT });
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
