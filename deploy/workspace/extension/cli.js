#!/opt/node/bin/node
// `gunpowder` in a terminal of the workspace.
"use strict";

const { answerTo, ask, readStatus, whyNoStatus, whyNotAsked } = require("./channel");
const { version } = require("./package.json");
const { describe, minutesIn } = require("./words");

const ANSWER_MS = 30000;
const USAGE = 64;
const OPTIONS = { status: ["--json"], stop: ["--when-done"], cancel: [] };
const HELP = `When does this workspace stop, and how to change that.

  gunpowder status [--json]      when it stops, and why
  gunpowder keep [TIME]          keep it running, used or not: 1h (the default), 2h, 90m, 1h30m, 45 (minutes);
                                 at most 8h, and never past its longest running time
  gunpowder stop                 stop it now; files are kept
  gunpowder stop --when-done     stop it as soon as no command runs in its terminals
  gunpowder cancel               withdraw a keep or a stop that waits
  gunpowder --help, --version

Keys, pointer and terminal input count as use, and so does a command that runs. A tab that is merely open does not.
Exit status: 0 done, 1 refused or no answer, 64 not understood.`;

function fail(message, status = 1) {
  process.stderr.write(`gunpowder: ${message}\n`);
  process.exitCode = status;
}

function say(text) {
  process.stdout.write(`${text}\n`);
}

async function wish(verb, more) {
  let id;
  try {
    id = await ask(verb, more);
  } catch (error) {
    fail(whyNotAsked(error));
    return;
  }
  const answer = await withProgress("Asking the platform…", answerTo(id, ANSWER_MS));
  if (!answer) fail("The platform did not answer within 30 seconds, and your wish was withdrawn. Try again, or use the Code Editor tab.");
  else if (answer.ok) say(answer.message);
  else fail(answer.message);
}

/** A line for whoever watches, gone when there is something better to read. */
async function withProgress(line, waited) {
  const { stderr } = process;
  if (stderr.isTTY) stderr.write(line);
  const result = await waited;
  if (stderr.isTTY) stderr.write("\r\x1b[K");
  return result;
}

function status(asJson) {
  const found = readStatus();
  if (!found) fail(whyNoStatus());
  else if (asJson) say(JSON.stringify(found, null, 2));
  else for (const [name, text] of describe(found, Date.now())) say(`${name.padEnd(11)}${text}`);
}

function keep(words) {
  const minutes = words.length ? minutesIn(words.join("")) : 60;
  if (minutes > 0) return wish("keep", { minutes });
  return fail(`'${words.join(" ")}' is not a time. For instance: 2h, 90m, 1h30m, 45 (minutes)`, USAGE);
}

function main([verb = "status", ...rest]) {
  if (["--help", "-h", "help"].includes(verb) || rest.includes("--help") || rest.includes("-h")) return say(HELP);
  if (["--version", "-V"].includes(verb)) return say(`gunpowder ${version}`);
  if (verb === "keep") return keep(rest);
  if (!Object.hasOwn(OPTIONS, verb)) return fail(`There is no '${verb}'. See gunpowder --help.`, USAGE);
  const odd = rest.find((option) => !OPTIONS[verb].includes(option));
  if (odd !== undefined) return fail(`'${verb}' does not know '${odd}'. See gunpowder --help.`, USAGE);
  if (verb === "status") return status(rest.includes("--json"));
  if (verb === "cancel") return wish("cancel");
  return wish(rest.includes("--when-done") ? "stop_when_done" : "stop");
}

main(process.argv.slice(2));
