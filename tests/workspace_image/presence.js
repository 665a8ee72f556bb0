// The extension's eyes on real terminals, without an editor around them; prints what it reported. The kernel keeps a
// terminal's times to eight seconds, so that nobody can tell a password's length from them: hence the pauses.
const Module = require("node:module");
const fs = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");
const { spawn } = require("node:child_process");
const listeners = {};
const window = {
  state: { active: false, focused: true },
  onDidChangeWindowState: (listener) => (listeners.state = listener),
  onDidChangeTextEditorSelection: (listener) => (listeners.selection = listener),
};
const vscode = { window, TextEditorSelectionChangeKind: { Keyboard: 1, Mouse: 2, Command: 3 } };
const load = Module._load;
Module._load = (name, ...more) => (name === "vscode" ? vscode : load(name, ...more));
const whole = () => JSON.parse(fs.readFileSync("/run/gunpowder/report.json", "utf8"));
const report = () => whole().presence;
const seen = {};

const TERMINAL = `
import os, pty, sys
outer, inner = pty.openpty()
for line in sys.stdin:
    wish = line.strip()
    if wish == "reopen":
        os.close(outer), os.close(inner)
        outer, inner = pty.openpty()
    elif wish == "output":
        os.write(inner, b"x"), os.read(outer, 9)
    else:
        os.write(outer, bytes([120, 10])), os.read(inner, 9)
`;

(async () => {
  const terminal = spawn("python3", ["-uc", TERMINAL], { stdio: ["pipe", "inherit", "inherit"] });
  const tell = (wish) => terminal.stdin.write(wish + "\n");
  tell("input");
  await sleep(500);
  const { Presence } = require("/opt/code-server/lib/vscode/extensions/gunpowder/presence");
  new Presence().watch();
  await sleep(200);
  seen.first = report().source;
  seen.alive = Math.abs(Date.now() - whole().alive) < 5000;
  window.state = { active: false, focused: false };
  listeners.state(window.state);
  listeners.selection({ kind: vscode.TextEditorSelectionChangeKind.Keyboard });
  const moved = Date.now();
  await sleep(100);
  seen.soon_after = report().source;
  listeners.selection({ kind: vscode.TextEditorSelectionChangeKind.Command });
  await sleep(9000);
  tell("output");
  tell("reopen");
  await sleep(9000);
  seen.later = report().source;
  seen.quiet = report().at <= moved;
  tell("input");
  await sleep(8500);
  seen.typed = report().source;
  seen.newer = report().at > moved;
  await sleep(9500);
  const before = Date.now();
  window.state = { active: true, focused: false };
  listeners.state(window.state);
  await sleep(200);
  seen.active = report().source;
  seen.at_once = report().at >= before;
  console.log(JSON.stringify(seen));
  process.exit();
})();
