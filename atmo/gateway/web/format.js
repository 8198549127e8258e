// Numbers and times for people. Whatever is no number is shown as a dash.

const DASH = "–";

export function finite(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** Seconds: `0.4 ms`, `23 ms`, `1.20 s`, `2 min 5 s`. */
export function duration(seconds) {
  if (!finite(seconds)) return DASH;
  if (seconds < 0.0995) return `${significant(seconds * 1000)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function significant(value) {
  if (value === 0) return "0";
  return value < 10 ? value.toFixed(value < 1 ? 2 : 1) : String(Math.round(value));
}

export function bytes(count) {
  if (!finite(count) || count < 0) return DASH;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0;
  let value = count;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${at && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

export function number(value, digits = 0) {
  return finite(value) ? value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits }) : DASH;
}

export function percent(share) {
  return finite(share) ? `${Math.round(share * 100)}%` : DASH;
}

export function count(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

/** Seconds since 1970 as the time of day. */
export function clock(seconds) {
  return finite(seconds) ? new Date(seconds * 1000).toLocaleTimeString("en-GB") : DASH;
}

/** `atmo:chat:qwen` is shown as `qwen`. */
export function short(capability) {
  const parts = String(capability ?? "").split(":");
  return parts.length > 2 ? parts.slice(2).join(":") : parts.join(":");
}
