// What this browser remembers: choices, and where each film was left.

const CHOICES = "magnetfs.choices";
const PLACES = "magnetfs.places";
/** Films whose place is kept; the one that was left longest ago goes first. */
const PLACES_LIMIT = 200;

/** A store may be forbidden, full or edited by hand: then nothing is remembered, and all else goes on. */
function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // See above.
  }
}

/** A choice of the viewer: seconds ahead, volume, languages. */
export function choice(name, otherwise) {
  return read(CHOICES)[name] ?? otherwise;
}

export function choose(name, value) {
  write(CHOICES, { ...read(CHOICES), [name]: value });
}

/** Seconds at which a film was left; 0 for one that is new, or was seen to its end. */
export function place(film) {
  return read(PLACES)[film] ?? 0;
}

/** Beginnings and ends are not worth a return. */
export function leave(film, seconds, duration) {
  const { [film]: _, ...others } = read(PLACES);
  const kept = Object.entries(others).slice(1 - PLACES_LIMIT);
  if (seconds > 10 && seconds < duration - 15) kept.push([film, Math.floor(seconds)]);
  write(PLACES, Object.fromEntries(kept));
}
