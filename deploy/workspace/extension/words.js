// Times and reasons in words, and durations out of words.
"use strict";

const UNITS = { s: 1 / 60, m: 1, min: 1, h: 60, d: 1440 };
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** `40 s`, `5 min`, `1 h 5 min`. */
function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

/** `40 seconds`, `1 minute`, `1 h 5 min`: for a sentence. */
function spoken(milliseconds) {
  const [number, unit, ...more] = duration(milliseconds).split(" ");
  const word = { s: "second", min: "minute", h: "hour" }[unit];
  return more.length ? duration(milliseconds) : `${number} ${word}${number === "1" ? "" : "s"}`;
}

/** `14:32`, or `3 May, 14:32` on another day. A container's own zone is UTC, which its user's is not: so that is said. */
function clock(milliseconds, now = Date.now()) {
  const moment = new Date(milliseconds);
  const two = (number) => String(number).padStart(2, "0");
  const zone = moment.getTimezoneOffset() === 0 ? " UTC" : "";
  const time = `${two(moment.getHours())}:${two(moment.getMinutes())}${zone}`;
  if (moment.toDateString() === new Date(now).toDateString()) return time;
  return `${moment.getDate()} ${MONTHS[moment.getMonth()]}, ${time}`;
}

/** Minutes in `2h`, `90m`, `1h30m`, `45` (minutes); NaN for anything else. */
function minutesIn(text) {
  const told = text.trim().toLowerCase();
  if (/^\d+([.]\d+)?$/.test(told)) return Number(told);
  if (!/^(\d+([.]\d+)?(s|min|m|h|d))+$/.test(told)) return NaN;
  return [...told.matchAll(/(\d+(?:[.]\d+)?)(s|min|m|h|d)/g)].reduce((sum, [, n, unit]) => sum + n * UNITS[unit], 0);
}

/** Whether it is known what runs in its terminals now. */
function isWorkKnown(status) {
  return Array.isArray(status?.working_on);
}

/** The commands that keep it running. */
function workIn(status) {
  return isWorkKnown(status) ? status.working_on.join(", ") : "";
}

/** Why a stop is near: what has happened, or rather has not. */
function because(status, now) {
  if (status.stops_reason === "lifetime") return "its longest running time ends";
  if (status.stops_reason === "work_budget") {
    return `work went on for ${spoken(status.work_budget_seconds * 1000)} without anybody here`;
  }
  return `nobody has used it for ${spoken(now - (status.last_activity_at ?? now))}`;
}

/** By which rule it will stop if nothing more happens. */
function rule(status, now) {
  if (status.stops_reason === "lifetime") return "no workspace runs longer than that";
  if (status.stops_reason === "work_budget") {
    return `work may go on for ${spoken(status.work_budget_seconds * 1000)} without anybody here`;
  }
  if (status.keep_until > now && status.keep_until >= status.stops_at) return "you asked to keep it until then";
  return `nobody will have used it for ${spoken(status.idle_seconds * 1000)} by then; every use moves that`;
}

function stateOf(status, now) {
  if (status.stop_when_done) return "running; stops as soon as no command runs in its terminals";
  if (status.warning) return `running; stops in ${duration(status.warning.at - now)}`;
  if (status.keep_until > now) return `running; kept until ${clock(status.keep_until, now)}, used or not`;
  return "running";
}

/** The whole state of affairs, as pairs of a name and a text. Whatever the platform left out is left out. */
function describe(status, now) {
  const { stops_at: stops, last_activity_at: last, keep_until: kept, lifetime_ends_at: end } = status;
  const reason = status.warning ? because(status, now) : rule(status, now);
  const lines = [["State", stateOf(status, now)]];
  if (stops) lines.push(["Stops at", `${clock(stops, now)} (${stops > now ? `in ${duration(stops - now)}` : "any moment"})`]);
  if (stops) lines.push(["Because", reason]);
  if (last) lines.push(["Last used", `${duration(now - last)} ago`]);
  if (kept > now) lines.push(["Kept until", clock(kept, now)]);
  if (isWorkKnown(status)) lines.push(["Running", workIn(status) || "no command"]);
  if (end) lines.push(["At most", `until ${clock(end, now)} (in ${duration(end - now)}), its longest running time`]);
  return lines;
}

module.exports = { because, clock, describe, duration, isWorkKnown, minutesIn, spoken, workIn };
