// The library: torrents, what they do, their files.

import { add, hold, remove, show } from "./api.js";
import { count, percent, printable, rate, size } from "./words.js";

const element = (id) => document.getElementById(id);
/** Below so many torrents there is nothing to filter. */
const FILTER_FROM = 6;
/** What is taken of a text that is dropped. */
const SOURCE = /^(magnet:|https?:|[0-9a-f]{40}$)/i;
/** Files that are listed of a torrent: more than this nobody reads, and a page would take long to draw. */
const FILES_LIMIT = 500;

/** What the words of the command line mean. */
const STATES = {
  resolving: "No peer has sent yet what is in it",
  parked: "At rest: it connects once something is read that is not here",
  active: "Connected, or looking for peers",
  paused: "Stopped: what is missing is not fetched",
  checking: "What is stored is compared with its hashes",
  complete: "All of it is here",
  error: "Stopped by a fault",
};

export class Library {
  #rows = new Map();

  constructor() {
    element("filter").addEventListener("input", () => this.#filter());
    element("add").addEventListener("submit", (event) => {
      event.preventDefault();
      const source = element("source").value.trim();
      if (source) this.#add([source]).then((all) => all && (element("source").value = ""));
    });
    element("file").addEventListener("change", ({ target }) => {
      this.#add(target.files).then(() => (target.value = ""));
    });
    this.#takeDrops();
  }

  /** What the daemon says of all torrents. */
  told(torrents) {
    const gone = new Set(this.#rows.keys());
    for (const report of torrents) {
      gone.delete(report.info_hash);
      let row = this.#rows.get(report.info_hash);
      if (!row) {
        row = new Row(report.info_hash);
        this.#rows.set(report.info_hash, row);
        element("torrents").append(row.item);
      }
      row.told(report);
    }
    for (const hash of gone) {
      this.#rows.get(hash).item.remove();
      this.#rows.delete(hash);
    }
    element("empty").hidden = torrents.length > 0;
    element("filter").hidden = torrents.length < FILTER_FROM;
    const sum = (key) => torrents.reduce((sum, report) => sum + report[key], 0);
    element("rates").textContent = `↓ ${rate(sum("download_rate"))}  ↑ ${rate(sum("upload_rate"))}`;
    this.#filter();
  }

  /** Shows the files of the torrent of this film. */
  open(film) {
    this.#rows.get(film.split("/")[0])?.open(true);
  }

  #filter() {
    const words = element("filter").hidden ? [] : element("filter").value.toLowerCase().split(/\s+/);
    for (const row of this.#rows.values()) row.item.hidden = !words.every((word) => row.text.includes(word));
  }

  /** Adds texts or files; whether all of them were taken. */
  async #add(sources) {
    const said = [];
    let all = true;
    for (const source of sources) {
      try {
        const added = await add(source);
        said.push(added.new === false ? `${printable(added.name)} was here already.` : `Added ${printable(added.name)}.`);
      } catch (error) {
        all = false;
        said.push(error.message);
      }
    }
    notice(said.join(" "));
    return all;
  }

  #takeDrops() {
    const on = (event, heard) =>
      window.addEventListener(event, (dropped) => {
        dropped.preventDefault();
        heard(dropped);
      });
    on("dragover", () => (element("drop").hidden = false));
    on("dragleave", (left) => left.relatedTarget ?? (element("drop").hidden = true));
    on("drop", ({ dataTransfer }) => {
      element("drop").hidden = true;
      const text = dataTransfer.getData("text/uri-list") || dataTransfer.getData("text/plain");
      const sources = dataTransfer.files.length > 0 ? dataTransfer.files : text.split(/\s+/).filter((it) => SOURCE.test(it));
      if (sources.length > 0) this.#add(sources);
    });
  }
}

/** Says what became of what was done. */
function notice(words) {
  element("notice").textContent = words;
  element("notice").hidden = !words;
}

/** Does it, and says what goes wrong. */
async function attempt(what) {
  try {
    notice("");
    await what();
  } catch (error) {
    notice(error.message);
  }
}

/** A torrent in the list. */
class Row {
  item = element("torrent-row").content.firstElementChild.cloneNode(true);
  /** What the filter looks at. */
  text = "";
  #hash;
  #report = null;
  #detailed = null;
  #files = [];

  constructor(hash) {
    this.#hash = hash;
    this.#part("open").addEventListener("click", () => this.open(this.#part("inside").hidden));
    this.#part("hold").addEventListener("click", () => attempt(() => hold(hash, this.#report.state !== "paused")));
    this.#part("remove").addEventListener("click", () => this.#remove());
  }

  told(report) {
    // Most of a large library stands still.
    if (JSON.stringify(report) === JSON.stringify(this.#report)) return;
    this.#report = report;
    const { state, size: whole, bytes_here: here, files, error } = report;
    const name = printable(report.name);
    this.text = `${name} ${state} ${report.info_hash}`.toLowerCase();
    this.#part("name").textContent = name;
    const word = this.#part("word");
    word.textContent = state === "checking" ? `checking ${percent(report.bytes_checked ?? 0, whole)}` : state;
    word.title = STATES[state] ?? "";
    word.dataset.state = state;
    bar(this.#part("progress"), files > 0 ? here : 0, whole);
    const facts = files > 0 ? [`${size(here)} of ${size(whole)} (${percent(here, whole)})`, count(files, "file")] : [];
    facts.push(count(report.peers, "peer"));
    if (report.download_rate > 0) facts.push(`↓ ${rate(report.download_rate)}`);
    if (report.upload_rate > 0) facts.push(`↑ ${rate(report.upload_rate)}`);
    this.#part("facts").textContent = facts.join(" · ");
    this.#part("fault").textContent = error ? printable(error) : "";
    this.#part("fault").hidden = !error;
    this.#part("hold").textContent = state === "paused" ? "Resume" : "Pause";
    for (const act of ["hold", "remove"]) this.#part(act).setAttribute("aria-description", name);
    this.#detail();
  }

  open(open) {
    this.#part("inside").hidden = !open;
    this.#part("open").setAttribute("aria-expanded", open);
    this.#detail();
  }

  #part(name) {
    return this.item.querySelector(`.${name}, ${name}`);
  }

  /** Asks for the files anew while they are shown and something changed. */
  async #detail() {
    const { files, bytes_here: here } = this.#report;
    const wanted = `${files} ${here}`;
    if (this.#part("inside").hidden || this.#detailed === wanted) return;
    this.#detailed = wanted;
    try {
      this.#list((await show(this.#hash)).contents);
    } catch (error) {
      this.#detailed = null;
      this.#part("more").textContent = error.message;
    }
  }

  #list(contents) {
    const list = this.#part("files");
    const shown = contents.slice(0, FILES_LIMIT);
    while (this.#files.length < shown.length) {
      const item = element("file-row").content.firstElementChild.cloneNode(true);
      this.#files.push(item);
      list.append(item);
    }
    shown.forEach((file, index) => fill(this.#files[index], file));
    const more = this.#part("more");
    const videos = contents.filter((file) => file.video).length;
    more.replaceChildren();
    if (contents.length === 0) more.append("Its files are shown once a peer has sent what is in it.");
    if (contents.length > shown.length) more.append(`And ${count(contents.length - shown.length, "more file")}. `);
    if (videos > 1) {
      const link = Object.assign(document.createElement("a"), { href: `m3u/${this.#hash}.m3u8` });
      link.textContent = `All ${videos} videos as a playlist`;
      more.append(link, " for another player.");
    }
  }

  async #remove() {
    const dialog = element("remove-dialog");
    element("remove-name").textContent = printable(this.#report.name);
    element("remove-size").textContent = size(this.#report.bytes_here);
    element("remove-data").checked = false;
    dialog.returnValue = "no";
    dialog.showModal();
    await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
    if (dialog.returnValue === "yes") await attempt(() => remove(this.#hash, element("remove-data").checked));
  }
}

/** A file in its line. Its path begins with the torrent's folder, which the line above names. */
function fill(item, file) {
  const part = (name) => item.querySelector(`.${name}, ${name}`);
  const path = printable(file.path);
  part("name").textContent = path.slice(path.indexOf("/") + 1);
  part("size").textContent = `${size(file.size)} · ${percent(file.bytes_here, file.size)}`;
  bar(part("progress"), file.bytes_here, file.size);
  part("raw").href = file.raw;
  part("raw").setAttribute("aria-label", `Raw file ${path}`);
  part("play").hidden = !file.video;
  part("play").setAttribute("aria-label", `Play ${path}`);
  if (file.video) part("play").href = `#${file.stream.replace(/^hls\//, "").replace(/\/master\.m3u8$/, "")}`;
}

function bar(progress, part, whole) {
  progress.value = whole > 0 ? part / whole : 0;
  progress.setAttribute("aria-label", `${percent(part, whole || 1)} here`);
}
