// Numbers and times in words, in the reader's own time zone.

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const dayFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** `14:32`, or `3 May, 14:32` when that was not today. */
export function clock(iso) {
  const moment = new Date(iso);
  const time = clockFormat.format(moment);
  return moment.toDateString() === new Date().toDateString() ? time : `${dayFormat.format(moment)}, ${time}`;
}

/** `0.4 s`, `12 s`, `5 min`, `1 h 5 min`. */
export function duration(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

/** `412 MB`, `1.5 GB`; powers of 1024, as the limits are set. */
export function size(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let power = 0;
  let value = bytes;
  while (value >= 1023.5 && power < units.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${value < 9.95 && power > 1 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

/** A clock that agrees with the server's; a laptop's own may be minutes off. */
export function serverClock(serverNow) {
  const ahead = Date.parse(serverNow) - Date.now();
  return () => Date.now() + ahead;
}
