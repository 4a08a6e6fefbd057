// The player: one film at a time, named by `<info hash>/<path>`, percent-encoded as in its addresses.

import { start } from "./engine.js";
import { choice, choose, leave, place } from "./memory.js";
import { Timeline } from "./timeline.js";
import { clock, language, percent, printable } from "./words.js";

const element = (id) => document.getElementById(id);
const video = element("video");
/** A wait is told once it is one: most seeks are over before. */
const WAIT_TOLD_MS = 400;
/** In full screen, controls that nobody touches for so long give way to the picture. */
const IDLE_MS = 3000;

export class Player {
  /** What plays; `null` when it is closed. */
  film = null;
  #engine = null;
  #report = null;
  #refused = null;
  #waits = null;
  #idle = null;
  #left = 0;
  #failedAt = 0;
  #preferred = new Set();
  #timeline = new Timeline((seconds) => this.seek(seconds));

  constructor() {
    const spans = Array.from(element("ahead").options, (option) => Number(option.value));
    video.volume = choice("volume", 1, (it) => Number.isFinite(it) && it >= 0 && it <= 1);
    video.muted = choice("muted", false, (it) => typeof it === "boolean");
    element("ahead").value = choice("ahead", 30, (it) => spans.includes(it));
    this.#hear();
  }

  /** Plays a film from where it was left. */
  open(film) {
    this.close();
    this.film = film;
    const name = printable(decodeURIComponent(film.split("/").pop()));
    element("title").textContent = name;
    document.title = `${name} – magnetfs`;
    if ("mediaSession" in navigator) navigator.mediaSession.metadata = new MediaMetadata({ title: name });
    const raw = new URL(`files/${film}`, document.baseURI).href.replaceAll("'", "%27");
    element("failure-raw").href = raw;
    element("failure-command").textContent = `mpv '${raw}'\nvlc '${raw}'`;
    element("player").hidden = false;
    element("player").scrollIntoView({ block: "start" });
    element("play").focus({ preventScroll: true });
    this.#load(place(film));
  }

  close() {
    if (!this.film) return;
    this.#remember();
    this.#engine?.close();
    this.#engine = this.#report = this.film = null;
    if (document.fullscreenElement) document.exitFullscreen();
    element("player").hidden = true;
    document.title = "magnetfs";
  }

  /** What the daemon says of the film that plays. */
  told(report) {
    this.#report = report;
    if (report.duration_s && !video.duration) this.#length(report.duration_s);
    this.#timeline.here(report.here.map(({ from_s, to_s }) => [from_s, to_s]));
    const here = report.here.reduce((sum, { from_s, to_s }) => sum + to_s - from_s, 0);
    element("state").textContent = report.duration_s ? `${percent(here, report.duration_s)} is here` : "";
    this.#lacks(report.left_out);
    this.#wait();
  }

  seek(seconds) {
    if (Number.isFinite(video.duration)) video.currentTime = Math.max(0, Math.min(seconds, video.duration - 0.1));
  }

  /** Does what a key says; whether it says anything. */
  key({ key, shiftKey }) {
    const step = shiftKey ? 60 : 10;
    const acts = {
      " ": () => this.#toggle(),
      k: () => this.#toggle(),
      ArrowLeft: () => this.seek(video.currentTime - step),
      ArrowRight: () => this.seek(video.currentTime + step),
      ArrowUp: () => this.#louder(0.05),
      ArrowDown: () => this.#louder(-0.05),
      f: () => this.#fullscreen(),
      m: () => (video.muted = !video.muted),
      c: () => this.#next("subtitles"),
      a: () => this.#next("audio"),
      Escape: () => (location.hash = ""),
    };
    const act = acts[key] ?? (/^[0-9]$/.test(key) ? () => this.seek((video.duration * key) / 10) : null);
    act?.();
    this.#active();
    return act !== null;
  }

  #load(at) {
    element("failure").hidden = true;
    this.#preferred.clear();
    this.#report = this.#refused = null;
    this.#timeline.here([]);
    this.#length(0);
    this.#offer([], []);
    this.#lacks([]);
    element("state").textContent = "";
    const told = {
      tracks: () => this.#tracks(),
      refused: (words) => this.#refuse(words),
      failed: (words) => this.#failed(words),
    };
    const options = { at, ahead: Number(element("ahead").value) };
    this.#engine = start(video, `hls/${this.film}/master.m3u8`, options, told);
    // Refused without a click, as after a reload: then the play button waits for one.
    video.play().catch(() => this.#playing());
    this.#wait();
  }

  #refuse(words) {
    this.#refused = words;
    this.#wait();
  }

  #failed(words) {
    this.#engine = null;
    this.#failedAt = video.currentTime;
    element("failure-words").textContent = words;
    element("failure").hidden = false;
    this.#wait();
  }

  #hear() {
    const on = (target, events, heard) => events.split(" ").forEach((event) => target.addEventListener(event, heard));
    on(video, "play pause ended", () => this.#playing());
    on(video, "durationchange", () => Number.isFinite(video.duration) && this.#length(video.duration));
    on(video, "timeupdate progress seeking seeked", () => this.#moved());
    on(video, "waiting seeking canplay playing pause emptied", () => this.#wait());
    on(video, "pause ended seeked", () => this.#remember());
    on(video, "volumechange", () => this.#loudness());
    on(video, "click", () => this.#toggle());
    on(video, "dblclick", () => this.#fullscreen());
    // A button that was clicked keeps no focus, so that the space bar stays what it is.
    on(element("controls"), "mousedown", (event) => event.target.closest("button") && event.preventDefault());
    on(element("play"), "click", () => this.#toggle());
    on(element("mute"), "click", () => (video.muted = !video.muted));
    on(element("fullscreen"), "click", () => this.#fullscreen());
    on(element("again"), "click", () => this.#load(this.#failedAt || place(this.film)));
    on(element("volume"), "input", ({ target }) => {
      video.muted = false;
      video.volume = target.valueAsNumber;
    });
    for (const kind of ["audio", "subtitles"]) {
      on(element(kind), "change", ({ target }) => this.#choose(kind, Number(target.value)));
    }
    on(element("ahead"), "change", ({ target }) => {
      choose("ahead", Number(target.value));
      this.#engine?.ahead(Number(target.value));
    });
    on(element("screen"), "pointermove pointerdown focusin", () => this.#active());
    on(window, "pagehide", () => this.#remember());
    this.#loudness();
  }

  #toggle() {
    if (video.paused) video.play().catch(() => this.#playing());
    else video.pause();
  }

  #louder(step) {
    video.muted = false;
    video.volume = Math.min(1, Math.max(0, video.volume + step));
  }

  #loudness() {
    element("volume").value = video.muted ? 0 : video.volume;
    element("mute").classList.toggle("muted", video.muted || video.volume === 0);
    element("mute").setAttribute("aria-pressed", video.muted);
    choose("volume", video.volume);
    choose("muted", video.muted);
  }

  #fullscreen() {
    const screen = element("screen");
    if (document.fullscreenElement) document.exitFullscreen();
    else if (screen.requestFullscreen) screen.requestFullscreen();
    else video.webkitEnterFullscreen?.(); // a phone that gives the screen to nothing but a video
  }

  #playing() {
    element("play").classList.toggle("playing", !video.paused);
    element("play").setAttribute("aria-label", video.paused ? "Play" : "Pause");
  }

  #length(seconds) {
    element("length").textContent = seconds > 0 ? clock(Math.round(seconds)) : "–";
    this.#timeline.length(seconds);
  }

  #moved() {
    element("now").textContent = clock(video.currentTime);
    this.#timeline.show(video);
    if (Math.abs(video.currentTime - this.#left) > 5) this.#remember();
  }

  #remember() {
    // Before its first picture a film stands at 0, wherever it is about to go on.
    if (!this.film || video.seeking || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    this.#left = video.currentTime;
    leave(this.film, video.currentTime, video.duration);
  }

  /** Says what is waited for, while something is. */
  #wait() {
    const loads = this.#engine && video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA && !video.ended;
    // A film that is paused before its first picture waits for that.
    const waits = loads && (!video.paused || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA);
    if (!waits) {
      clearTimeout(this.#waits);
      this.#waits = null;
      element("waiting").hidden = true;
      return;
    }
    const report = this.#report;
    const asked = report && (report.waiting > 0 || report.state === "waiting-for-header" || report.state === "stalled");
    element("waiting-words").textContent = this.#refused ?? (asked ? report.words : "Getting ready…");
    this.#waits ??= setTimeout(() => (element("waiting").hidden = false), WAIT_TOLD_MS);
  }

  /** The choices of sound and subtitles, as the engine has them. */
  #tracks() {
    if (!this.#engine) return;
    const { audio, subtitles } = this.#engine.tracks;
    this.#offer(audio, subtitles);
    this.#prefer("audio", audio);
    this.#prefer("subtitles", subtitles);
  }

  #offer(audio, subtitles) {
    const options = (tracks) => tracks.map((track, index) => new Option(label(track, index), index, false, track.chosen));
    element("audio").replaceChildren(...(audio.length > 0 ? options(audio) : [new Option("–")]));
    element("audio").disabled = audio.length < 2;
    const off = new Option("off", -1, false, !subtitles.some((track) => track.chosen));
    element("subtitles").replaceChildren(off, ...options(subtitles));
    element("subtitles").disabled = subtitles.length === 0;
  }

  /** Tells of the tracks that are in the file and not among the choices: a sentence each. */
  #lacks(sentences) {
    const list = element("left-out");
    list.replaceChildren(
      ...sentences.map((words) => Object.assign(document.createElement("li"), { textContent: printable(words) })),
    );
    list.hidden = sentences.length === 0;
  }

  /** Once for each film: the language that was chosen before, or no subtitles. */
  #prefer(kind, tracks) {
    if (this.#preferred.has(kind) || tracks.length === 0) return;
    this.#preferred.add(kind);
    const lang = choice(kind, null, (it) => typeof it === "string");
    const index = tracks.findIndex((track) => lang && track.lang === lang);
    const chosen = tracks.findIndex((track) => track.chosen);
    if (index !== chosen && (index >= 0 || (kind === "subtitles" && lang === ""))) this.#engine.choose(kind, index);
  }

  #choose(kind, index) {
    if (!this.#engine) return;
    choose(kind, this.#engine.tracks[kind][index]?.lang ?? "");
    this.#engine.choose(kind, index);
    this.#tracks();
  }

  #next(kind) {
    const select = element(kind);
    if (select.disabled) return;
    select.selectedIndex = (select.selectedIndex + 1) % select.length;
    this.#choose(kind, Number(select.value));
  }

  #active() {
    element("screen").classList.remove("idle");
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => element("screen").classList.toggle("idle", !video.paused), IDLE_MS);
  }
}

/** `German · Commentary`: language and name, if the name does not say the language itself. */
function label({ name, lang }, index) {
  const [spoken, called] = [language(lang), printable(name ?? "")];
  const parts = called.toLowerCase().includes(spoken.toLowerCase()) ? [called] : [spoken, called];
  return parts.filter((part) => part && part !== lang).join(" · ") || `Track ${index + 1}`;
}
