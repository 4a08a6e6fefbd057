// The page: a library and a player, both fed by one stream of events. Start reading here.
//
// The film that plays is the fragment of the address, so that reload, back and a link to a friend's own copy work.

import { Events } from "./api.js";
import { Library } from "./library.js";
import { Player } from "./player.js";

const element = (id) => document.getElementById(id);
const library = new Library();
const player = new Player();
let listed = false;
const events = new Events({
  torrents(torrents) {
    library.told(torrents);
    if (!listed && player.film) library.open(player.film);
    listed = true;
  },
  film: (report) => player.film && player.told(report),
  connected(yes) {
    element("connection").textContent = "magnetfs does not answer; trying again.";
    element("connection").hidden = yes;
  },
});

/** The film that the address names: `<info hash>/<path>`, percent-encoded; `null` where it names none. */
function named() {
  const film = location.hash.slice(1);
  try {
    decodeURIComponent(film);
  } catch {
    return null;
  }
  return /^[0-9a-f]{40}\/./.test(film) ? film : null;
}

function go() {
  const film = named();
  if (film && film === player.film) return;
  if (film) {
    player.open(film);
    library.open(film);
  } else {
    player.close();
  }
  events.follow(film);
}

/** What has keys of its own: what is written in, and what the arrows or the space bar move. */
function keepsKeys(target, key) {
  if (target.matches("select, input:not(#position)")) return target.type !== "range" || key.startsWith("Arrow");
  return target.matches("button, a") && (key === " " || key === "Enter");
}

window.addEventListener("keydown", (event) => {
  const modified = event.ctrlKey || event.altKey || event.metaKey;
  if (modified || document.querySelector("dialog[open]") || keepsKeys(event.target, event.key)) return;
  let done = true;
  if (event.key === "?") element("help").showModal();
  else if (event.key === "/" && !element("filter").hidden) element("filter").focus();
  else done = player.film !== null && player.key(event);
  if (done) event.preventDefault();
});
element("help-button").addEventListener("click", () => element("help").showModal());
window.addEventListener("hashchange", go);
go();
