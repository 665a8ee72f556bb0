// The stages of a start, as they happen.

import { duration } from "./format.js";

const ORDER = ["queued", "preparing", "creating", "waiting", "ready"];
const SAID = { done: "done", current: "in progress", failed: "failed here" };

/** Whether the start that `workspace` tells of was left unfinished. */
export function failedWhileStarting(workspace) {
  const stages = workspace.stages ?? [];
  return workspace.state === "failed" && stages.length > 0 && stages.at(-1).stage !== "ready";
}

/** Seconds from the request of the latest start until it was ready, or until `now`. */
export function elapsedSeconds(workspace, now) {
  const stages = workspace.stages ?? [];
  const begin = Date.parse(stages[0]?.at ?? workspace.requested_at ?? "");
  if (Number.isNaN(begin)) return null;
  const last = stages.at(-1);
  const end = last?.stage === "ready" ? Date.parse(last.at) : now;
  return Math.max(0, (end - begin) / 1000);
}

/** Where a start that waits stands, and about how long it will: `Place 3 in the queue, about 12 s.` */
export function placeInQueue({ queued_position: place, queued_for: what, queued_seconds: seconds }) {
  if (what === "memory") {
    return `Place ${place} in the queue. The machine has too little memory free; it goes on as soon as some is.`;
  }
  if (!seconds) return `Place ${place} in the queue.`;
  return `Place ${place} in the queue, about ${seconds < 60 ? `${seconds} s` : duration(seconds)}.`; // no tenths: a guess
}

/** Show in `list` how far the start of `workspace` has come. */
export function renderStages(list, workspace) {
  const stages = workspace.stages ?? [];
  const running = workspace.state === "running";
  const reached = running ? ORDER.length : Math.max(0, ...stages.map(({ stage }) => ORDER.indexOf(stage)));
  for (const [position, item] of [...list.children].entries()) {
    const status = statusOf(position, reached, workspace.state);
    item.className = status;
    if (status === "current") item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    part(item, "stage-said").textContent = SAID[status] ? `, ${SAID[status]}` : "";
    part(item, "stage-time").textContent = status === "done" ? took(stages, ORDER[position]) : "";
  }
}

function statusOf(position, reached, state) {
  if (position < reached) return "done";
  if (position > reached) return "ahead";
  if (state === "failed") return "failed";
  return ORDER[position] === "ready" ? "done" : "current";
}

/** From the first time a stage was entered until the first later one was: a port that was taken repeats a stage. */
function took(stages, name) {
  const begin = stages.find(({ stage }) => stage === name);
  const end = stages.find(({ stage }) => ORDER.indexOf(stage) > ORDER.indexOf(name));
  return begin && end ? duration((Date.parse(end.at) - Date.parse(begin.at)) / 1000) : "";
}

function part(item, name) {
  let found = item.querySelector(`.${name}`);
  if (!found) {
    found = document.createElement("span");
    found.className = name === "stage-said" ? `${name} hide` : name;
    item.append(found);
  }
  return found;
}
