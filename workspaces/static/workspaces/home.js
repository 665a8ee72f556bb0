// The Code Editor tab: shows the workspace as it is and lets its owner act on it.

import { clock, duration, serverClock, size } from "./format.js";
import { call, messageOf, NO_ANSWER } from "./http.js";
import { elapsedSeconds, failedWhileStarting, placeInQueue, renderStages } from "./stages.js";
import { watch } from "./watch.js";

const API = "/api/v1/code-server";
const STATS_MS = 10000;
const HISTORY_SHOWN = 6;
const LABELS = { stopped: "Stopped", starting: "Starting", running: "Running", stopping: "Stopping", failed: "Failed" };
// What may be pressed in which state; Start stays while stopping, because the last wish wins.
const BUTTONS = {
  stopped: ["start"],
  starting: ["stop"],
  running: ["open", "restart", "stop"],
  stopping: ["start"],
  failed: ["start"],
};

const $ = (id) => document.getElementById(id);
const read = (id) => JSON.parse($(id).textContent);

const now = serverClock($("workspace").dataset.now);
const sentences = read("sentences-data");
let workspace = read("workspace-data");
let busy = false;

// --- showing ---------------------------------------------------------------------------------------------------

/** Only touch what differs: a live region speaks whenever its text is set. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show(element, visible) {
  element.hidden = !visible;
}

function render() {
  const { state } = workspace;
  say($("badge"), LABELS[state] ?? state);
  $("badge").dataset.state = state;
  say($("sentence"), sentenceFor(workspace));
  const why = state === "stopped" ? workspace.explanation : "";
  show($("why"), Boolean(why));
  say($("why"), why ?? "");
  document.title = `${LABELS[state]} · Code Editor · Gunpowder`;
  renderError();
  renderProgress();
  renderButtons();
  renderIdle();
}

function sentenceFor(shown) {
  const { state, state_sentence: sentence, queued_position: place, stopped_at: at, stop_sentence: why } = shown;
  if (state === "stopped" && at) return `Stopped at ${clock(at)}. ${why ?? ""}`.trim();
  if (state === "starting" && place) return placeInQueue(shown);
  return sentence;
}

function renderError() {
  const { error } = workspace;
  show($("error"), Boolean(error));
  say($("error-message"), error?.message ?? "");
}

function renderProgress() {
  const visible = workspace.state === "starting" || failedWhileStarting(workspace);
  show($("start-progress"), visible);
  if (visible) renderStages($("stages"), workspace);
  renderElapsed();
}

function renderElapsed() {
  const seconds = workspace.state === "starting" ? elapsedSeconds(workspace, now()) : null;
  $("elapsed").textContent = seconds === null ? "" : `${Math.floor(seconds)} s so far`;
}

function renderButtons() {
  const focused = document.activeElement;
  const shown = BUTTONS[workspace.state] ?? [];
  $("open").href = workspace.url;
  $("start").textContent = workspace.state === "failed" ? "Try again" : "Start";
  for (const name of ["open", "start", "restart", "stop"]) {
    show($(name), shown.includes(name));
    if (name !== "open") $(name).setAttribute("aria-disabled", String(busy));
  }
  keepFocus(focused, shown);
}

/**
 * A button that vanishes must not take the focus with it, nor hand it to Stop: the next Enter would press that.
 * So the focus waits on the state and goes on to "Open editor" when that appears.
 */
function keepFocus(focused, shown) {
  if (focused?.hidden && $("actions").contains(focused)) $("state-heading").focus();
  if (shown.includes("open") && document.activeElement === $("state-heading")) $("open").focus();
}

function renderIdle() {
  const { state, stops_at: at, keep_until: kept } = workspace;
  const known = state === "running" && Boolean(at);
  show($("idle-row"), known);
  show($("idle-why"), known);
  if (!known) return;
  say($("idle-line"), idleSentence(Date.parse(at), kept ? Date.parse(kept) : 0));
  $("idle-line").dataset.warned = String(Boolean(workspace.warned));
  show($("stop-when-done"), !workspace.stop_when_done);
  renderDecision();
}

function idleSentence(stops, kept) {
  const { stop_when_done: waits, stops_reason: reason } = workspace;
  const at = clock(new Date(stops).toISOString());
  const seconds = (stops - now()) / 1000;
  const left = seconds < 60 ? "less than a minute" : duration(seconds);
  if (waits) return `Stops as soon as no command runs in its terminals, at ${at} at the latest.`;
  if (reason === "lifetime") return `Stops at ${at}, in ${left}: it may not run longer than that.`;
  if (kept > now()) return `Kept running until ${clock(new Date(kept).toISOString())}. Without use it stops in ${left}.`;
  if (reason === "work_budget") return `Stops at ${at}, in ${left}: a command may not run longer without you.`;
  return `Stops at ${at}, in ${left}, unless it is used before then.`;
}

/** The last decision about idleness, with the clocks it saw, and the last that let it run on. */
function renderDecision() {
  const { decision, explanation, last_spared: spared } = workspace;
  show($("spared-line"), Boolean(spared) && spared.at !== decision?.at);
  if (spared) say($("spared-line"), `Before that, at ${clock(spared.at)}: ${spared.sentence}`);
  show($("clocks"), Boolean(decision));
  if (!decision) return;
  say($("decision-line"), `${clock(decision.at)}: ${explanation}`);
  const { clocks } = decision;
  const rows = [
    ["You", clocks.presence_at],
    ["Work", clocks.work_at],
    ["Connection", clocks.connection_at],
    ["Kept until", clocks.keep_until],
  ].filter(([, at]) => at);
  $("clocks").replaceChildren(
    ...rows.flatMap(([name, at]) => [
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: clock(at) }),
    ]),
  );
}

// --- usage, history, log ---------------------------------------------------------------------------------------

/** These are extras: when one cannot be had, the page stays as it is. */
async function ask(path) {
  try {
    return await call("GET", `${API}/${path}`);
  } catch {
    return { ok: false, status: 0, body: { message: NO_ANSWER } };
  }
}

async function refreshUsage() {
  if (document.visibilityState !== "visible") return;
  const answer = await ask("stats");
  if (answer.ok) renderUsage(answer.body);
}

/** Memory and processor belong to a running container; files take their place all the time. */
function renderUsage(stats) {
  const running = workspace.state === "running" && Number.isFinite(stats.memory_bytes);
  const measured = running || Number.isFinite(stats.disk_bytes);
  show($("usage-none"), !measured);
  show($("meters"), measured);
  for (const name of ["memory", "cpu", "pids"]) show($(`${name}-row`), running);
  renderMeter("memory", stats.memory_bytes, stats.memory_limit_bytes);
  renderMeter("disk", stats.disk_bytes, stats.disk_limit_bytes);
  $("cpu").value = stats.cpu_percent ?? 0;
  $("cpu-text").textContent = `${Math.round(stats.cpu_percent ?? 0)} %`;
  $("pids-row").textContent = `${stats.pids ?? 0} processes and threads`;
}

function renderMeter(name, used, limit) {
  const known = Number.isFinite(used);
  show($(name), known && Boolean(limit));
  if (known && limit) $(name).value = used / limit;
  $(`${name}-text`).textContent = known ? size(used) + (limit ? ` of ${size(limit)}` : "") : "not measured yet";
}

async function refreshHistory() {
  const answer = await ask("history");
  if (!answer.ok) return;
  const entries = (answer.body.results ?? []).slice(0, HISTORY_SHOWN);
  show($("history-none"), entries.length === 0);
  $("history").replaceChildren(...entries.map(historyItem));
}

function historyItem(entry) {
  const item = document.createElement("li");
  const time = Object.assign(document.createElement("time"), { dateTime: entry.time, textContent: clock(entry.time) });
  const state = Object.assign(document.createElement("strong"), { textContent: LABELS[entry.to] ?? entry.to });
  const text = entry.explanation || sentences[entry.reason] || entry.reason;
  const why = Object.assign(document.createElement("span"), { textContent: text });
  item.append(time, state, why);
  return item;
}

async function refreshLog() {
  const answer = await ask("logs?tail=200");
  const lines = answer.body.lines ?? [];
  const at = clock(new Date().toISOString());
  $("log-note").textContent = answer.ok ? `${lines.length || "No"} lines, read at ${at}.` : messageOf(answer);
  if (!answer.ok) return;
  show($("log-lines"), lines.length > 0);
  $("log-lines").textContent = lines.join("\n");
  $("log-lines").scrollTop = $("log-lines").scrollHeight;
}

// --- acting ----------------------------------------------------------------------------------------------------

async function act(path, data) {
  if (busy) return;
  busy = true;
  renderButtons();
  show($("action-error"), false);
  try {
    const answer = await call("POST", `${API}/${path}`, data);
    if (answer.ok) update(answer.body);
    else if (answer.status === 401) logInAgain();
    else complain(messageOf(answer));
  } catch {
    complain(NO_ANSWER);
  } finally {
    busy = false;
    renderButtons();
  }
  // The answer and the stream may have overtaken each other; a moment later all is settled.
  setTimeout(() => watcher.refresh(), 1500);
}

function complain(message) {
  $("action-error").textContent = message;
  show($("action-error"), true);
}

function logInAgain() {
  location.assign("/login?next=/");
}

// --- following -------------------------------------------------------------------------------------------------

function update(next) {
  const changed = next.state !== workspace.state;
  workspace = { ...workspace, ...next };
  render();
  if (!changed) return;
  show($("action-error"), false);
  refreshHistory();
  refreshUsage();
  if ($("log").open) refreshLog();
}

function addStage(progress) {
  const known = (workspace.stages ?? []).some(({ stage, at }) => stage === progress.stage && at === progress.at);
  if (known || workspace.state !== "starting") return;
  workspace.stages = [...(workspace.stages ?? []), progress];
  renderProgress();
}

$("start").addEventListener("click", () => act("start"));
$("stop").addEventListener("click", () => act("stop"));
$("restart").addEventListener("click", () => act("restart"));
$("keep").addEventListener("click", () => act("keep", { minutes: 60 }));
$("stop-when-done").addEventListener("click", () => act("stop", { when: "command_ends" }));
$("log").addEventListener("toggle", () => $("log").open && refreshLog());
$("log-refresh").addEventListener("click", refreshLog);

render();
refreshHistory();
refreshUsage();
const watcher = watch({
  eventsUrl: `${API}/events`,
  statusUrl: `${API}/status`,
  onWorkspace: update,
  onStage: addStage,
  onConnection: (alive) => show($("connection"), !alive),
  onRefused: logInAgain,
  pauseWhenHidden: true,
});
setInterval(refreshUsage, STATS_MS);
setInterval(() => document.visibilityState === "visible" && renderElapsed(), 1000);
setInterval(renderIdle, 15000);
