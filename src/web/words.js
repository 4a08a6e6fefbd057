// Sizes, rates and times for people, as the command line words them.

/** `999 B`, `1.5 GiB`: below 100 of a unit with one decimal. */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (bytes >= 1023.5 && unit + 1 < units.length) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes.toFixed(unit > 0 && bytes < 99.95 ? 1 : 0)} ${units[unit]}`;
}

/** Bytes a second. */
export function rate(bytes) {
  return `${size(bytes)}/s`;
}

/** A part of a whole, rounded down: only all of it is 100 %. */
export function percent(part, whole) {
  return part >= whole ? "100 %" : `${(Math.floor((part / whole) * 1000) / 10).toFixed(1)} %`;
}

/** A place in a film: `4:05`, `1:02:03`. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** `1 file`, `2 files`. */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** A name as it may be shown: marks that would hide another extension than there is are made visible. */
export function printable(name) {
  return name.replace(/[\p{Cc}\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu, "\ufffd");
}

/** The name of a language, in the reader's own: `de` and `ger` are German. */
export function language(code) {
  try {
    return code ? new Intl.DisplayNames(undefined, { type: "language", fallback: "code" }).of(code) : "";
  } catch {
    return code; // no language code at all
  }
}
