// Places in the editor that no option reaches. Each is found exactly once, or the build stops: a new release that
// moved one needs a look by a person.
// Usage: node patch.mjs CODE_SERVER DEFAULTS_JSON
import { readFileSync, writeFileSync } from "node:fs";

const [editor, defaults] = process.argv.slice(2);

function insert(file, anchor, replacement) {
  const path = `${editor}/${file}`;
  const parts = readFileSync(path, "utf8").split(anchor);
  if (parts.length !== 2) {
    console.error(`patch: the place was found ${parts.length - 1} times in ${path}, not once: ${anchor}`);
    process.exit(1);
  }
  writeFileSync(path, parts.join(replacement));
}

// Every window gets the defaults in defaults.json from its first moment, users' own settings still winning. The workbench
// takes `configurationDefaults` from the page that loads it, but the server has no option to put them there; an
// extension's defaults come later and may not touch application-wide settings (telemetry, updates).
const trust = 'enableWorkspaceTrust:!this._environmentService.args["disable-workspace-trust"],';
const values = JSON.stringify(JSON.parse(readFileSync(defaults, "utf8")));
insert("lib/vscode/out/server-main.js", trust, `configurationDefaults:${values},${trust}`);

// The platform reads the workspace's report; like its question for the health, that must not look like somebody's use.
insert(
  "out/node/routes/index.js",
  "if (!/^\\/healthz\\/?$/.test(req.url)) {",
  'if (!/^\\/healthz\\/?$/.test(req.url) && !(req.method === "GET" && req.url === "/vscode-remote-resource?path=/run/gunpowder/report.json")) {',
);

// An old tab says when and why its workspace was stopped, and offers to resume. The platform serves the script, next to
// the editor; before everything else, because it watches the connections that the editor opens.
const head = '<meta charset="utf-8" />';
insert("lib/vscode/out/vs/code/browser/workbench/workbench.html", head, `${head}\n\t\t<script src="_gunpowder/tab.js"></script>`);

// The editor's two processes give each other ten seconds and then end with "timed out", also where a busy machine merely
// needs eleven. How long a start may take is the platform's to say (GUNPOWDER_START_TIMEOUT_SECONDS, at most ten minutes).
insert("out/node/wrapper.js", "const timeoutInterval = 10000;", "const timeoutInterval = 600000;");

// The one that works can be ended for want of memory. The other then said 0, the same as after an ordinary stop, and
// nobody could be told why their editor was gone. A shell's form: 128 and the signal's number.
insert("out/node/wrapper.js", 'child.once("exit", (code) => {', 'child.once("exit", (code, signal) => {');
insert("out/node/wrapper.js", "this.exit(code || 0);", 'this.exit(code ?? 128 + require("os").constants.signals[signal]);');

// A terminal whose tab was closed was ended when the window's time to come back was over, and a build with it. Here it
// lives as long as the container: whether that is still needed is the platform's to decide, which sees what runs in it.
// The number is the longest time that a timer takes, 24 days.
const grace = "graceTime:l.reconnectionGraceTime,shortGraceTime:l.reconnectionGraceTime>0?Math.min(3e5,l.reconnectionGraceTime):0";
insert("lib/vscode/out/server-main.js", grace, "graceTime:2147483647,shortGraceTime:2147483647");

// Whoever reads moves the pointer and the wheel and nothing else; the editor's own idea of an active user is keys, mouse
// buttons and touch. A pointer under which the page moved has not moved itself.
const workbench = "lib/vscode/out/vs/code/browser/workbench/workbench.js";
const keys = 'c.add(G(a.document,"keydown",()=>r(a),o4i))';
const pointer = 'c.add(G(a.document,"pointermove",(e)=>{(e.movementX||e.movementY)&&r(a)},o4i))';
insert(workbench, keys, `${keys},${pointer},c.add(G(a.document,"wheel",()=>r(a),o4i))`);

// A progress message and a notebook that runs count there as an active user as well. They are work, not a person: seen
// from outside, with a budget.
insert(workbench, "this.userActivityService.markActive({extendOnly:!0,whenHeldFor:15e3})", "{dispose(){}}");
insert(workbench, "this._activityMutex.value=this._userActivity.markActive()", "this._activityMutex.value={dispose(){}}");
