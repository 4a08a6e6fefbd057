// What plays: hls.js over Media Source Extensions, or the browser's own HLS where there are none (Safari on a phone).
// Both have the same face: `tracks`, `choose`, `ahead`, `close`.

import Hls from "./hls.min.mjs";
import { reason } from "./api.js";

/** The longest time that a browser's timer takes. A segment may wait for the swarm: the daemon ends what is hopeless. */
const FOREVER_MS = 2 ** 31 - 1;
/** 503 says that the daemon is busy or starting anew, 0 that it is away: both pass. */
const PASSING = [0, 503];
/** What a wait is that the daemon names in no whole seconds, and what it is at most, whoever named it on the way. */
const AGAIN_S = { otherwise: 5, most: 60 };
/** How often a part is asked for that fails otherwise: the daemon itself has tried twice by then. */
const TRIES = 3;

const PATIENCE = {
  default: {
    maxTimeToFirstByteMs: FOREVER_MS,
    maxLoadTimeMs: FOREVER_MS,
    timeoutRetry: null,
    errorRetry: {
      maxNumRetry: Number.MAX_SAFE_INTEGER,
      retryDelayMs: 2000,
      maxRetryDelayMs: 2000,
      backoff: "linear",
      shouldRetry: (_config, count, _timeout, response, retry) =>
        PASSING.includes(response?.code) || (retry && count < TRIES),
    },
  },
};

/**
 * Starts to load. `told` has `tracks()`, when they are known or change, `refused(words)`, when the daemon puts off what
 * it is asked for, and `null` when it no longer does, and `failed(words)`, when it is over.
 */
export function start(video, address, { at, ahead }, told) {
  return Hls.isSupported() ? new WithHls(video, address, at, ahead, told) : new Native(video, address, at, told);
}

class WithHls {
  #hls;
  #video;
  #address;
  #ahead;
  #told;
  #errors = 0;
  #recovered = -Infinity;

  constructor(video, address, at, ahead, told) {
    [this.#video, this.#address, this.#ahead, this.#told] = [video, address, ahead, told];
    this.#open({ startPosition: at });
  }

  #open(options) {
    const told = this.#told;
    const hls = new Hls({
      ...options,
      backBufferLength: 30,
      ...aheadOf(this.#ahead),
      // All levels have the same picture, and differ in the codec of their sound: there is nothing to adapt.
      capLevelToPlayerSize: false,
      capLevelOnFPSDrop: false,
      testBandwidth: false,
      // Segments are fMP4 and need no work; and a worker would need a `blob:` in the policy.
      enableWorker: false,
      xhrSetup: this.#patience(),
      manifestLoadPolicy: PATIENCE,
      playlistLoadPolicy: PATIENCE,
      fragLoadPolicy: PATIENCE,
    });
    this.#hls = hls;
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      const wanted = hls.levels.findIndex((level) => level.hasAudioGroup(options.audioPreference?.groupId));
      hls.loadLevel = wanted >= 0 ? wanted : hls.firstLevel;
    });
    for (const event of ["MANIFEST_PARSED", "AUDIO_TRACKS_UPDATED", "AUDIO_TRACK_SWITCHED", "SUBTITLE_TRACK_SWITCH"]) {
      hls.on(Hls.Events[event], () => told.tracks());
    }
    hls.on(Hls.Events.FRAG_BUFFERED, () => (this.#errors = 0));
    hls.on(Hls.Events.ERROR, (_, error) => this.#error(error));
    hls.loadSource(this.#address);
    hls.attachMedia(this.#video);
  }

  /**
   * hls.js does not look at Retry-After. It may ask again when it likes; what was put off is sent once the time that the
   * daemon named is over. What it no longer wants by then, it does not send.
   */
  #patience() {
    const told = this.#told;
    // By kind of what was asked for: hls.js has one request of each at a time.
    const putOff = new Map();
    const tell = () => told.refused([...putOff.values()].at(-1)?.said ?? null);
    tell();
    return async (request, url, { type, frag }) => {
      const kind = frag ? `${frag.type} ${frag.sn === "initSegment"}` : type;
      const before = putOff.get(kind);
      if (before?.url === url) await before.over;
      if (before && putOff.get(kind) === before) {
        putOff.delete(kind);
        tell();
      }
      request.addEventListener("loadend", () => {
        if (request.status !== 503) return;
        const seconds = waitOf(request.getResponseHeader("Retry-After"));
        const over = new Promise((over) => setTimeout(over, seconds * 1000));
        putOff.set(kind, { url, over, said: later(words(request), seconds) });
        tell();
      });
    };
  }

  #error({ type, details, fatal, frag, response, networkDetails }) {
    const status = response?.code;
    if (type === Hls.ErrorTypes.MEDIA_ERROR) {
      if (!fatal) return;
      if (performance.now() - this.#recovered < 10_000) {
        this.#fail(`This browser cannot play the film (${details}).`);
      } else {
        this.#recovered = performance.now();
        this.#hls.recoverMediaError();
      }
    } else if (fatal) {
      this.#fail(status ? words(networkDetails) : `This browser cannot play the film (${details}).`);
    } else if (frag && status >= 400 && !PASSING.includes(status)) {
      // Left alone, hls.js asks for it again for ever.
      this.#errors += 1;
      if (status < 500 || this.#errors >= TRIES) this.#fail(words(networkDetails));
    }
  }

  #fail(words) {
    this.#told.failed(words);
    this.close();
  }

  /** What can be chosen: `[{ name, lang, chosen }]` each. */
  get tracks() {
    const hls = this.#hls;
    const current = hls.audioTracks[hls.audioTrack];
    const plain = (chosen) => (track) => ({ name: track.name, lang: track.lang, chosen: chosen(track) });
    return {
      audio: hls.allAudioTracks.map(plain((track) => track === current)),
      subtitles: hls.subtitleTracks.map(plain((track) => track.id === hls.subtitleTrack)),
    };
  }

  /** Chooses by place in `tracks`; no subtitles are -1. */
  choose(kind, index) {
    const hls = this.#hls;
    if (kind === "subtitles") {
      hls.subtitleTrack = index;
      return;
    }
    const track = hls.allAudioTracks[index];
    const place = hls.audioTracks.indexOf(track);
    if (place >= 0) {
      hls.audioTrack = place;
      return;
    }
    // Sound of another codec stands in another level, and hls.js 1.7 does not get from one to the other and back.
    const { currentTime, paused, readyState } = this.#video;
    const startPosition = readyState > 0 ? currentTime : hls.config.startPosition;
    const subtitlePreference = hls.subtitleTracks[hls.subtitleTrack];
    hls.destroy();
    this.#open({ startPosition, audioPreference: track, subtitlePreference });
    if (!paused) this.#video.play().catch(() => {});
  }

  /** Seconds that are fetched ahead of what is seen. */
  ahead(seconds) {
    this.#ahead = seconds;
    Object.assign(this.#hls.config, aheadOf(seconds));
  }

  close() {
    this.#hls.destroy();
  }
}

/** hls.js goes on to `maxBufferSize`, but never beyond `maxMaxBufferLength`. */
function aheadOf(seconds) {
  return { maxBufferLength: seconds, maxMaxBufferLength: seconds };
}

/** What the daemon said, of an XMLHttpRequest that loaded a playlist or a segment. */
function words(request) {
  const body = request.response ?? "";
  return reason(typeof body === "string" ? body : new TextDecoder().decode(body), request.status);
}

/** Seconds until what was refused may be asked for again. */
function waitOf(header) {
  return Math.min(/^\d+$/.test(header ?? "") ? Number(header) : AGAIN_S.otherwise, AGAIN_S.most);
}

/** What the viewer reads meanwhile. */
function later(said, seconds) {
  return `${said[0].toUpperCase()}${said.slice(1).replace(/\.$/, "")}. This page asks again every ${seconds} s.`;
}

class Native {
  #video;
  #until = new AbortController();
  #again = null;

  constructor(video, address, at, told) {
    this.#video = video;
    const listen = (target, event, heard) => target?.addEventListener(event, heard, { signal: this.#until.signal });
    listen(video, "loadedmetadata", () => {
      video.currentTime = at;
      told.refused(null);
      told.tracks();
    });
    for (const list of [video.audioTracks, video.textTracks]) {
      for (const event of ["addtrack", "change"]) listen(list, event, () => told.tracks());
    }
    // A browser pauses what fails.
    let plays = false;
    listen(video, "play", () => (plays = true));
    listen(video, "pause", () => (plays = plays && video.error !== null));
    listen(video, "error", async () => {
      const answer = await fetch(address).catch(() => null);
      const refused = answer && !answer.ok ? reason(await answer.text(), answer.status) : null;
      if (this.#until.signal.aborted) return;
      if (answer?.status === 503) {
        const seconds = waitOf(answer.headers.get("Retry-After"));
        told.refused(later(refused, seconds));
        at = video.currentTime || at;
        this.#again = setTimeout(() => {
          video.src = address;
          if (plays) video.play().catch(() => {});
        }, seconds * 1000);
        return;
      }
      told.failed(refused ?? "This browser cannot play the film.");
      this.close();
    });
    video.src = address;
  }

  get tracks() {
    const plain = (chosen) => (track) => ({ name: track.label, lang: track.language, chosen: chosen(track) });
    return {
      audio: Array.from(this.#video.audioTracks ?? [], plain((track) => track.enabled)),
      subtitles: Array.from(this.#video.textTracks, plain((track) => track.mode === "showing")),
    };
  }

  choose(kind, index) {
    const { audioTracks, textTracks } = this.#video;
    if (kind === "audio") Array.from(audioTracks ?? []).forEach((track, i) => (track.enabled = i === index));
    else Array.from(textTracks).forEach((track, i) => (track.mode = i === index ? "showing" : "disabled"));
  }

  /** The browser decides. */
  ahead() {}

  close() {
    this.#until.abort();
    clearTimeout(this.#again);
    this.#video.removeAttribute("src");
    this.#video.load();
  }
}
