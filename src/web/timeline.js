// The bar over the whole film: what is local, what the player has, what was seen; and it seeks.

import { clock } from "./words.js";

/** Spans of seconds as a path that is 1 high. */
function path(spans) {
  return spans.map(([from, to]) => `M${from} 0H${to}V1H${from}z`).join("");
}

export class Timeline {
  #bar = document.getElementById("timeline");
  #input = document.getElementById("position");
  #hover = document.getElementById("hover");
  #duration = 0;
  #here = [];
  #dragged = false;

  /** `seek` is called with seconds, once a place is chosen. */
  constructor(seek) {
    // While it is dragged only the label follows: each place on the way would ask the swarm for what nobody will see.
    this.#input.addEventListener("input", () => {
      this.#dragged = true;
      this.#label(this.#input.valueAsNumber);
    });
    this.#input.addEventListener("change", () => {
      this.#dragged = false;
      this.#hover.hidden = true;
      seek(this.#input.valueAsNumber);
    });
    this.#bar.addEventListener("pointermove", (event) => this.#label(this.#under(event)));
    this.#bar.addEventListener("pointerleave", () => (this.#hover.hidden = true));
    this.length(0);
  }

  /** Seconds of the whole film; 0 while they are unknown. */
  length(duration) {
    this.#duration = duration;
    this.#input.max = duration || 1;
    this.#input.disabled = duration === 0;
    this.#bar.querySelector("svg").setAttribute("viewBox", `0 0 ${duration || 1} 1`);
  }

  /** Parts of the film whose bytes are in the daemon's store: `[from, to]` in seconds. */
  here(spans) {
    this.#here = spans;
    this.#draw("here", this.#duration > 0 ? spans : []);
  }

  /** What the player holds, and where it is. */
  show(video) {
    const spans = Array.from(video.buffered, (_, i) => i).map((i) => [video.buffered.start(i), video.buffered.end(i)]);
    this.#draw("buffered", spans);
    this.#draw("played", [[0, video.currentTime]]);
    if (!this.#dragged) this.#input.value = video.currentTime;
    this.#input.setAttribute("aria-valuetext", `${clock(video.currentTime)} of ${clock(this.#duration)}`);
  }

  #draw(name, spans) {
    this.#bar.querySelector(`.${name}`).setAttribute("d", path(spans));
  }

  #under(event) {
    const box = this.#input.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * this.#duration;
  }

  #label(seconds) {
    if (this.#duration === 0) return;
    const local = this.#here.some(([from, to]) => from <= seconds && seconds < to);
    this.#hover.textContent = clock(seconds) + (local ? "" : " · not here yet");
    this.#hover.hidden = false;
    const half = this.#hover.offsetWidth / 2;
    const width = this.#bar.clientWidth;
    const middle = (seconds / this.#duration) * width;
    this.#hover.style.left = `${Math.min(width - half, Math.max(half, middle))}px`;
  }
}
