// Reports presence, shows what the platform says, and passes on what its user wishes.
"use strict";

const vscode = require("vscode");
const { answerTo, ask, readStatus, whyNoStatus, whyNotAsked } = require("./channel");
const { Presence } = require("./presence");
const { because, clock, describe, duration, isWorkKnown, minutesIn, spoken, workIn } = require("./words");

const POLL_MS = 2000;
const ANSWER_MS = 30000;
// A message hides by itself after some seconds, so the last minute is said once more.
const LAST_MS = 60000;
const KEEP = "Keep 1 hour";
const STOP = "Stop now";
const WHEN_DONE = "Stop when the command ends";
const LONGER = "Keep longer…";
const WITHDRAW = "As usual: stop when nobody uses it";
// A message without a button is cut off after its first line.
const SEEN = "All right";
const WHAT_COUNTS =
  "Keys, pointer and cursor in the editor and keys in a terminal count as use; so does a command that runs in a terminal. A tab that is merely open does not.";

// --- wishes ------------------------------------------------------------------------------------------------------

/** Ask for it and say what came of it. */
async function wish(verb, more) {
  let id;
  try {
    id = await ask(verb, more);
  } catch (error) {
    vscode.window.showErrorMessage(`Gunpowder: ${whyNotAsked(error)}`);
    return;
  }
  const answer = await answerTo(id, ANSWER_MS);
  if (!answer) vscode.window.showErrorMessage("Gunpowder: the platform has not answered, and your wish was withdrawn. Try again, or use the Code Editor tab.");
  else if (answer.ok) vscode.window.showInformationMessage(answer.message);
  else vscode.window.showErrorMessage(answer.message);
}

async function keepRunning() {
  const text = await vscode.window.showInputBox({
    title: "Keep this workspace running",
    prompt: "For how long? At most 8 hours.",
    value: "2h",
    validateInput: (value) => (minutesIn(value) > 0 ? undefined : "For instance: 2h, 90m, 1h30m"),
  });
  if (text !== undefined) await wish("keep", { minutes: minutesIn(text) });
}

/** What runs in a terminal would be ended, so it is named first; and asked for where it is not known. */
async function stop() {
  const status = readStatus();
  const running = workIn(status);
  if (!running && isWorkKnown(status)) return wish("stop");
  const what = running ? `Running in a terminal: ${running}. It would be ended.` : "What runs in a terminal would be ended.";
  const detail = `${what} Your files are kept.`;
  return follow(await vscode.window.showWarningMessage("Stop this workspace?", { modal: true, detail }, STOP, WHEN_DONE));
}

function follow(choice) {
  if (choice === KEEP) return wish("keep", { minutes: 60 });
  if (choice === STOP) return wish("stop");
  if (choice === WHEN_DONE) return wish("stop_when_done");
  if (choice === LONGER) return keepRunning();
  if (choice === WITHDRAW) return wish("cancel");
  return undefined;
}

/** What can be wished for now. */
function choicesIn(status) {
  return workIn(status) || !isWorkKnown(status) ? [KEEP, STOP, WHEN_DONE] : [KEEP, STOP];
}

async function choose() {
  const status = readStatus();
  const now = Date.now();
  const choices = [...choicesIn(status), LONGER];
  if (status?.keep_until > now || status?.stop_when_done) choices.push(WITHDRAW);
  const placeHolder = status?.stops_at ? `Stops at ${clock(status.stops_at, now)}` : undefined;
  await follow(await vscode.window.showQuickPick(choices, { title: "Gunpowder", placeHolder }));
}

/** How it stands, line by line, and what counts. */
function account(status, now) {
  return [...describe(status, now).map((pair) => pair.join(": ")), "", WHAT_COUNTS].join("\n");
}

async function explain() {
  const status = readStatus();
  const detail = status ? account(status, Date.now()) : whyNoStatus();
  const title = "When does this workspace stop?";
  await follow(await vscode.window.showInformationMessage(title, { modal: true, detail }, KEEP));
}

// --- what the platform says --------------------------------------------------------------------------------------

/** Follows what the platform says and shows it. */
class Notices {
  #item = vscode.window.createStatusBarItem("gunpowder.stop", vscode.StatusBarAlignment.Right, 1000);
  #warnedOf = new Set();
  #told = new Set();

  watch() {
    this.#item.name = "Gunpowder";
    this.#item.command = "gunpowder.choose";
    const timer = setInterval(() => this.#look(), POLL_MS);
    this.#look();
    return [this.#item, { dispose: () => clearInterval(timer) }];
  }

  #look() {
    const status = readStatus();
    const now = Date.now();
    try {
      this.#show(status ?? {}, now);
      this.#warn(status ?? {}, now);
      this.#tellOfTheEnd(status ?? {}, now);
    } catch {
      this.#item.hide(); // a status of a form that nobody foresaw
    }
  }

  #show(status, now) {
    const { warning, keep_until: kept, stop_when_done: waits } = status;
    if (waits) this.#item.text = "$(clock) Stops when done";
    else if (warning?.at > now) this.#item.text = `$(clock) Stops in ${duration(warning.at - now)}`;
    else if (kept > now) this.#item.text = `$(clock) Kept for ${duration(kept - now)}`;
    else {
      this.#item.hide();
      return;
    }
    this.#item.backgroundColor = warning ? new vscode.ThemeColor("statusBarItem.warningBackground") : undefined;
    this.#item.tooltip = account(status, now);
    this.#item.show();
  }

  #warn(status, now) {
    const left = status.warning?.at - now;
    const mark = `${status.warning?.at} ${left <= LAST_MS}`;
    if (!(left > 0) || this.#warnedOf.has(mark)) return;
    this.#warnedOf.add(mark);
    const text = `This workspace stops in ${spoken(left)}, at ${clock(status.warning.at, now)}: ${because(status, now)}. Your files are kept.`;
    vscode.window.showWarningMessage(text, ...choicesIn(status)).then(follow);
  }

  /** Only the longest running time ends a workspace in use, so whoever is there is told in time. */
  #tellOfTheEnd(status, now) {
    const { lifetime_ends_at: end, lifetime_warnings: moments } = status;
    const due = (moments ?? []).filter((at) => at <= now && !this.#told.has(at));
    if (!due.length || !(end > now)) return;
    for (const at of due) this.#told.add(at);
    vscode.window.showWarningMessage(
      `The longest running time of this workspace ends in ${spoken(end - now)}, at ${clock(end, now)}: then it stops, in use or not. Your files are kept, and you can start it again at once.`,
      SEEN,
    );
  }
}

function activate(context) {
  const commands = {
    "gunpowder.choose": choose,
    "gunpowder.keep": keepRunning,
    "gunpowder.stop": stop,
    "gunpowder.stopWhenDone": () => wish("stop_when_done"),
    "gunpowder.cancel": () => wish("cancel"),
    "gunpowder.status": explain,
  };
  for (const [name, run] of Object.entries(commands)) {
    context.subscriptions.push(vscode.commands.registerCommand(name, run));
  }
  context.subscriptions.push(...new Presence().watch(), ...new Notices().watch());
}

module.exports = { activate };
