// Stands in for an editor that is not there yet: shows its start, and goes in when it answers.

import { serverClock } from "./format.js";
import { call, messageOf, NO_ANSWER } from "./http.js";
import { elapsedSeconds, failedWhileStarting, placeInQueue, renderStages } from "./stages.js";
import { watch } from "./watch.js";

const PROBE_MS = 500;
// After this long without an answer a person is offered to decide.
const PATIENCE_MS = 30000;
// A page that goes in and lands here again more often than this would do so for ever.
const ENTRIES = 5;
const ENTRIES_WITHIN_MS = 30000;
// Found stopped within this time after somebody opened the page, the editor is started; a forgotten tab starts nothing.
const FRESH_MS = 120000;
// Stops that somebody meant; they are not undone behind their back.
const MEANT = ["user", "staff", "disabled"];

const $ = (id) => document.getElementById(id);
const { mode, now: serverNow } = $("progress").dataset;
const now = serverClock(serverNow);
const openedAt = Date.now();
let workspace = JSON.parse($("workspace-data").textContent);
let mayStart = mode === "reconnecting"; // otherwise the server has started it already, or has said why not
let refused = mode === "refused";
let probing = false;
let gaveUp = false;
let complaint = ""; // about an editor that runs but cannot be entered

const BASE = workspace.url;
const HEADLINES = {
  stopped: "Your editor is stopped",
  starting: "Starting your editor…",
  running: mode === "reconnecting" ? "Reconnecting to your editor…" : "Opening your editor…",
  stopping: "Your editor is stopping…",
  failed: "Your editor did not start",
};

// --- showing ---------------------------------------------------------------------------------------------------

function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function render() {
  const { state, error } = workspace;
  const headline = state === "failed" && !failedWhileStarting(workspace) ? "Your editor has stopped" : HEADLINES[state];
  say("headline", headline);
  say("sentence", error ? "" : sentence());
  document.title = `${headline} · Gunpowder`;
  $("stages").hidden = !showsStart();
  renderStages($("stages"), workspace);
  renderElapsed();
  if (state !== "running") complaint = "";
  showError(error?.message ?? complaint, { log: Boolean(error ?? complaint) });
  $("retry").textContent = state === "stopped" ? "Start" : "Try again";
  $("retry-row").hidden = !complaint && !["stopped", "failed"].includes(state);
}

/** An editor that we only reconnect to was started long ago. */
function showsStart() {
  const { state } = workspace;
  return state === "starting" || (state === "running" && mode !== "reconnecting") || failedWhileStarting(workspace);
}

function sentence() {
  const { state, queued_position: place, stop_sentence: reason, explanation } = workspace;
  const opens = "The editor opens here by itself.";
  const why = explanation || reason;
  if (state === "starting" && place) return `${placeInQueue(workspace)} ${opens}`;
  if (state === "starting") return `This takes a few seconds. ${opens}`;
  if (state === "running") return "It is running. The editor opens here as soon as it answers.";
  return state === "stopped" ? (why ?? "") : "";
}

function renderElapsed() {
  const seconds = workspace.state === "starting" ? elapsedSeconds(workspace, now()) : null;
  $("elapsed").hidden = seconds === null;
  $("elapsed").textContent = seconds === null ? "" : `${Math.floor(seconds)} s so far`;
}

function showError(message, { log = false } = {}) {
  say("error-message", message);
  $("error").hidden = !message;
  $("error-hint").hidden = !log;
}

function complain(message) {
  complaint = message;
  render();
}

// --- going in --------------------------------------------------------------------------------------------------

/** Ask the editor itself until it answers, then load the page again: this time nginx lets it through. */
async function goIn() {
  if (probing || gaveUp) return;
  probing = true;
  const since = Date.now();
  while (workspace.state === "running") {
    if (await answers()) {
      probing = false;
      enter();
      return;
    }
    if (!complaint && Date.now() - since > PATIENCE_MS) {
      complain("The editor runs but does not answer. We keep trying.");
    }
    await new Promise((done) => setTimeout(done, PROBE_MS));
  }
  probing = false;
}

/** Our own answer for an editor that is away is 503; whatever else comes is for the page itself to show. */
async function answers() {
  try {
    const response = await fetch(BASE, { method: "HEAD", cache: "no-store", redirect: "manual" });
    return response.status < 500;
  } catch {
    return false;
  }
}

function enter() {
  if (countEntry() <= ENTRIES) {
    location.reload();
    return;
  }
  gaveUp = true;
  complain("The editor answers, but its page does not open. Try again in a moment.");
}

/** How often this tab went in lately, this time included. */
function countEntry() {
  const key = `gunpowder-entries-${workspace.user_id}`;
  try {
    const lately = JSON.parse(sessionStorage.getItem(key) ?? "[]").filter((at) => Date.now() - at < ENTRIES_WITHIN_MS);
    const entries = [...lately, Date.now()].slice(-ENTRIES - 1);
    sessionStorage.setItem(key, JSON.stringify(entries));
    return entries.length;
  } catch {
    return 1; // storage is switched off; the probe alone has to do
  }
}

function forgetEntries() {
  try {
    sessionStorage.removeItem(`gunpowder-entries-${workspace.user_id}`);
  } catch {
    // nothing was remembered either
  }
}

// --- starting --------------------------------------------------------------------------------------------------

async function start() {
  mayStart = false;
  refused = false;
  try {
    const answer = await call("POST", `${BASE}_gunpowder/start`);
    if (answer.ok) update(answer.body);
    else if (answer.status === 401) location.reload();
    else refuse(messageOf(answer));
  } catch {
    refuse(NO_ANSWER);
  }
}

/** Keep the refusal on the page until a person tries again: the next event would wipe it. */
function refuse(message) {
  refused = true;
  say("headline", "Not started");
  say("sentence", "");
  $("stages").hidden = true;
  showError(message);
  $("retry-row").hidden = false;
}

function startsByItself({ state, stop_reason: reason }) {
  const fresh = Date.now() - openedAt < FRESH_MS && document.visibilityState === "visible";
  return mayStart && fresh && state === "stopped" && !MEANT.includes(reason);
}

function retry(event) {
  event.preventDefault();
  forgetEntries();
  if (workspace.state === "running") location.reload();
  else start();
}

// --- following -------------------------------------------------------------------------------------------------

function update(next) {
  const settled = ["stopped", "failed"].includes(next.state);
  workspace = { ...workspace, ...next };
  if (refused && settled) return;
  refused = false;
  if (startsByItself(workspace)) {
    start();
    return;
  }
  render();
  if (workspace.state === "running") goIn();
}

function addStage(progress) {
  const known = (workspace.stages ?? []).some(({ stage, at }) => stage === progress.stage && at === progress.at);
  if (known || workspace.state !== "starting") return;
  workspace.stages = [...(workspace.stages ?? []), progress];
  renderStages($("stages"), workspace);
}

$("retry").addEventListener("click", retry);
$("retry").addEventListener("keydown", (event) => event.key === " " && retry(event));
if (refused) $("stages").hidden = true;
else update(workspace);
watch({
  eventsUrl: `${BASE}_gunpowder/events`,
  statusUrl: `${BASE}_gunpowder/status`,
  onWorkspace: update,
  onStage: addStage,
  onConnection: (alive) => {
    $("connection").hidden = alive;
  },
  onRefused: () => location.reload(),
  pauseWhenHidden: false,
});
setInterval(renderElapsed, 1000);
