// What this browser remembers: choices, and where each film was left.

const CHOICES = "magnetfs.choices";
const PLACES = "magnetfs.places";
/** Films whose place is kept; the one that was left longest ago goes first. */
const PLACES_LIMIT = 200;

/**
 * A store may be forbidden, full, or written by an older page or by hand: then nothing is remembered, and all else goes
 * on.
 */
function read(key) {
  try {
    const value = JSON.parse(localStorage.getItem(key));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
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

/** A choice of the viewer: seconds ahead, volume, languages. `otherwise` is for what is not there, or does not fit. */
export function choice(name, otherwise, fits) {
  const value = read(CHOICES)[name];
  return fits(value) ? value : otherwise;
}

export function choose(name, value) {
  write(CHOICES, { ...read(CHOICES), [name]: value });
}

/** Seconds at which a film was left; 0 for one that is new, or was seen to its end. */
export function place(film) {
  const seconds = read(PLACES)[film];
  return Number.isFinite(seconds) && seconds > 0 ? seconds : 0;
}

/** Beginnings and ends are not worth a return. */
export function leave(film, seconds, duration) {
  const { [film]: _, ...others } = read(PLACES);
  const kept = Object.entries(others).slice(1 - PLACES_LIMIT);
  if (seconds > 10 && seconds < duration - 15) kept.push([film, Math.floor(seconds)]);
  write(PLACES, Object.fromEntries(kept));
}
