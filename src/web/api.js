// What the daemon is asked, and what it tells. All addresses are relative: the page may stand below a token.

/** Asks, and gives what was answered. What went wrong is thrown, in the daemon's own words. */
async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: typeof body === "string" ? { "Content-Type": "application/json" } : {} });
  } catch {
    throw new Error("magnetfs does not answer. Is it still running?");
  }
  const text = await answer.text();
  if (!answer.ok) throw new Error(reason(text, answer.status));
  return text ? JSON.parse(text) : null;
}

/** The words of an answer that is an error. */
export const reason = (text, status) => text.trim() || `magnetfs answers ${status}.`;

export const show = (hash) => ask("GET", `api/torrents/${hash}`);
export const hold = (hash, paused) => ask("POST", `api/torrents/${hash}/${paused ? "pause" : "resume"}`);
export const remove = (hash, data) => ask("DELETE", `api/torrents/${hash}${data ? "?data=true" : ""}`);
/** `source` is a text, or the file of a torrent. */
export const add = (source) =>
  ask("POST", "api/torrents", typeof source === "string" ? JSON.stringify({ source }) : source);

/**
 * What changes, as it changes. There is one stream for all of it, since a browser opens six connections to a host and
 * segments need the others; it is opened anew for another film. It reconnects by itself.
 */
export class Events {
  #source = null;
  #told;

  /** `told` has a function for each kind of event, `torrents` and `film`, and `connected`. */
  constructor(told) {
    this.#told = told;
  }

  /** Follows the library, and this film: `<info hash>/<path>`, percent-encoded as in its address. */
  follow(film) {
    this.#source?.close();
    const query = film ? `?film=${encodeURIComponent(decodeURIComponent(film))}` : "";
    const source = new EventSource(`api/events${query}`);
    for (const kind of ["torrents", "film"]) {
      source.addEventListener(kind, (event) => this.#told[kind](JSON.parse(event.data)));
    }
    source.addEventListener("open", () => this.#told.connected(true));
    source.addEventListener("error", () => {
      this.#told.connected(false);
      // A refusal ends a stream for good; a daemon that was away for a moment may well give one.
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(() => source === this.#source && this.follow(film), 3000);
      }
    });
    this.#source = source;
  }
}
