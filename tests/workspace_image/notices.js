// The extension's words and buttons, without an editor around them: what it shows for what the platform says, one word
// after another. Run as `node -e "$SCRIPT" STATUS...`; prints what was shown for each.
const Module = require("node:module");
const fs = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");
const shown = [];
const commands = {};
let presses = null;

const message = (kind) => async (text, ...more) => {
  const buttons = more.filter((each) => typeof each === "string");
  shown.push({ kind, text, buttons, ...(more[0]?.detail && { detail: more[0].detail }) });
  return buttons.includes(presses) ? presses : undefined;
};
const item = { hide: () => (item.visible = false), show: () => (item.visible = true), visible: false };
const nothing = { dispose() {} };
const vscode = {
  StatusBarAlignment: { Right: 2 },
  TextEditorSelectionChangeKind: { Keyboard: 1, Mouse: 2 },
  ThemeColor: class {},
  commands: { registerCommand: (name, run) => ((commands[name] = run), nothing) },
  window: {
    state: { active: false, focused: false },
    createStatusBarItem: () => item,
    onDidChangeTextEditorSelection: () => nothing,
    onDidChangeWindowState: () => nothing,
    showErrorMessage: message("error"),
    showInformationMessage: message("information"),
    showInputBox: async ({ value }) => value,
    showQuickPick: async (buttons, { placeHolder: text }) => void shown.push({ kind: "pick", text, buttons }),
    showWarningMessage: message("warning"),
  },
};
const load = Module._load;
Module._load = (name, ...more) => (name === "vscode" ? vscode : load(name, ...more));

const tell = (status) => {
  fs.writeFileSync("/run/gunpowder-status/.new", JSON.stringify(status));
  fs.renameSync("/run/gunpowder-status/.new", "/run/gunpowder-status/status.json");
};

(async () => {
  const { activate } = require("/opt/code-server/lib/vscode/extensions/gunpowder/extension");
  const began = Date.now();
  const moment = (_, value) => (typeof value?.minutes === "number" ? Math.round(began + 60e3 * value.minutes) : value);
  const steps = process.argv.slice(1).map((text) => JSON.parse(text, moment));
  tell({});
  activate({ subscriptions: [] });
  const results = [];
  for (const { name, status, press, command } of steps) {
    shown.length = 0;
    presses = press ?? null;
    tell(status);
    if (command) await commands[command]();
    await sleep(2600);
    const bar = item.visible ? item.text : "";
    const { request } = JSON.parse(fs.readFileSync("/run/gunpowder/report.json", "utf8"));
    results.push({ name, shown: [...shown], bar, request });
    if (request && press) {
      tell({ ...status, warning: null, answer: { id: request.id, ok: true, message: "Heard." } });
      await sleep(600);
      results.at(-1).confirmed = shown.at(-1).text;
    }
  }
  console.log(JSON.stringify(results));
  process.exit();
})();
