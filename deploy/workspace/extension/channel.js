// What the workspace and the platform say to each other: two small files, no network.
//
// The report (ours) lies in a small file system in memory, which may be missing, wiped or full: then nothing is reported
// and nothing fails. The status (theirs) lies in a folder that only the platform can write.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");

const FOLDER = "/run/gunpowder";
const REPORT = `${FOLDER}/report.json`;
const LOCK = `${FOLDER}/.lock`;
const STATUS = "/run/gunpowder-status/status.json";
const MAX_REPORT = 4096;
const MAX_STATUS = 65536;
const SOURCES = ["window", "cursor", "terminal", "opened"];
const VERBS = ["keep", "stop", "stop_when_done", "cancel"];
// Another window has just said that somebody notices.
const SAID_MS = 30000;
// A writer holds the lock for less than a millisecond; one that is older has lost its owner.
const STALE_LOCK_MS = 2000;
const LOCK_MS = 5000;

/** The JSON object in `file`, or null for anything else: absent, too large, not a file, not JSON. */
function readObject(file, most) {
  let handle;
  try {
    // Never wait for a pipe that somebody put there.
    handle = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    if (!fs.fstatSync(handle).isFile()) return null;
    const buffer = Buffer.alloc(most + 1);
    const length = fs.readSync(handle, buffer, 0, most + 1, 0);
    if (length > most) return null;
    const found = JSON.parse(buffer.toString("utf8", 0, length));
    return found && typeof found === "object" && !Array.isArray(found) ? found : null;
  } catch {
    return null;
  } finally {
    if (handle !== undefined) fs.closeSync(handle);
  }
}

// --- taking turns ------------------------------------------------------------------------------------------------

function unique() {
  return `${process.pid}.${crypto.randomBytes(4).toString("hex")}`;
}

/** Which lock lies there, if any. */
function lockNumber() {
  return fs.statSync(LOCK, { bigint: true, throwIfNoEntry: false })?.ino;
}

/** Remove a lock whose owner has died. Renamed first: of several who saw the old one, none may remove the next one. */
function removeStaleLock() {
  const lies = fs.statSync(LOCK, { throwIfNoEntry: false });
  if (!lies || Date.now() - lies.mtimeMs < STALE_LOCK_MS) return;
  const aside = `${LOCK}.${unique()}`;
  try {
    fs.renameSync(LOCK, aside);
    if (Date.now() - fs.statSync(aside).mtimeMs < STALE_LOCK_MS) fs.linkSync(aside, LOCK);
  } catch {
    // Somebody else was faster; the next try shows how it stands.
  }
  fs.rmSync(aside, { force: true });
}

/** Take the lock and return its number. Throws EBUSY after `patience` milliseconds. */
async function lock(patience) {
  const end = Date.now() + patience;
  for (;;) {
    try {
      const handle = fs.openSync(LOCK, "wx", 0o600);
      const number = fs.fstatSync(handle, { bigint: true }).ino;
      fs.closeSync(handle);
      return number;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    removeStaleLock();
    if (Date.now() > end) throw Object.assign(new Error("others are writing"), { code: "EBUSY" });
    await sleep(2 + Math.random() * 10);
  }
}

/**
 * Let `change` edit the report, taking turns with the other windows and the command line; readers see it before or
 * after, never half. `change` returns false when there is nothing to write. Throws when it cannot be written.
 */
async function updateReport(change, patience = LOCK_MS) {
  const number = await lock(patience);
  const building = `${FOLDER}/.report.${unique()}`;
  try {
    const report = whatMakesSense(readObject(REPORT, MAX_REPORT));
    if (change(report) === false) return;
    fs.writeFileSync(building, JSON.stringify(report), { flag: "wx", mode: 0o600 });
    // Frozen for so long that others took over: what was read is old by now.
    if (lockNumber() !== number) throw Object.assign(new Error("the lock was lost"), { code: "EBUSY" });
    fs.renameSync(building, REPORT);
  } finally {
    fs.rmSync(building, { force: true });
    if (lockNumber() === number) fs.rmSync(LOCK, { force: true });
  }
}

/** Only what the platform reads is carried over, so the report never grows. */
function whatMakesSense(found) {
  const report = { version: 1 };
  const { alive, presence, request } = found ?? {};
  if (Number.isFinite(alive)) report.alive = alive;
  if (Number.isFinite(presence?.at) && SOURCES.includes(presence.source)) {
    report.presence = { at: presence.at, source: presence.source };
  }
  if (typeof request?.id === "string" && request.id.length <= 64 && VERBS.includes(request.verb)) {
    const { id, verb, minutes, at } = request;
    report.request = { id, verb, ...(Number.isFinite(minutes) && { minutes }), ...(Number.isFinite(at) && { at }) };
  }
  return report;
}

// --- saying and hearing ------------------------------------------------------------------------------------------

/**
 * Note that somebody was there at `at` (milliseconds since the epoch), and that there is somebody who notices: what an
 * extension wrote that has ended since says nothing of now. Throws when it cannot be written.
 */
async function notePresence(at, source) {
  await updateReport((report) => {
    const before = report.presence?.at ?? 0;
    const now = Date.now();
    // A time of the future is none, so it must not hide what comes after it.
    const news = before < at || before > now + 1000;
    if (!news && Math.abs(now - (report.alive ?? 0)) < SAID_MS) return false;
    if (news) report.presence = { at: Math.round(at), source };
    report.alive = now;
    return true;
  });
}

/** Ask the platform for something; returns the id under which it answers. Throws when it cannot be asked. */
async function ask(verb, more = {}) {
  const id = crypto.randomUUID();
  await updateReport((report) => {
    report.request = { id, verb, ...more, at: Date.now() };
    return true;
  });
  return id;
}

/** Why `ask` threw, and what to do, for a person. */
function whyNotAsked(error) {
  const instead = "Use the Code Editor tab instead.";
  if (!fs.existsSync(FOLDER)) return `This workspace was started without ${FOLDER}. Restart it once. ${instead}`;
  if (error.code === "ENOSPC") return `${FOLDER} is full. Delete what does not belong there. ${instead}`;
  return `${FOLDER} cannot be written (${error.code ?? error.message}). ${instead}`;
}

function isReportThere() {
  return fs.existsSync(REPORT);
}

/** What the platform says of this workspace, or null. */
function readStatus() {
  return readObject(STATUS, MAX_STATUS);
}

/** Why `readStatus` found nothing, for a person. */
function whyNoStatus() {
  const folder = path.dirname(STATUS);
  if (!fs.existsSync(folder)) return `This workspace was started without ${folder}. Restart it once in the Code Editor tab.`;
  return "The platform has not said anything yet. It does so within seconds of a start; look again in a moment.";
}

/**
 * The answer to request `id`, or null after `patience` milliseconds. Then it is withdrawn: what somebody was told has
 * failed must not happen a minute later.
 */
async function answerTo(id, patience) {
  const end = Date.now() + patience;
  let withdrawn = false;
  for (;;) {
    const answer = readStatus()?.answer;
    if (answer?.id === id) return answer;
    if (withdrawn) return null;
    if (Date.now() >= end) {
      await withdraw(id);
      withdrawn = true;
    }
    await sleep(withdrawn ? 1000 : 200);
  }
}

async function withdraw(id) {
  try {
    await updateReport((report) => {
      if (report.request?.id !== id) return false;
      delete report.request;
      return true;
    });
  } catch {
    // Where nothing can be written any more, it is too old for the platform soon.
  }
}

module.exports = { answerTo, ask, isReportThere, notePresence, readStatus, whyNoStatus, whyNotAsked };
