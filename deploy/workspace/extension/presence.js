// Notices that a person is there: only times, never what somebody does.
//
// `window.state.active` goes false a minute after the last key, or move of pointer or wheel (../patch.mjs), and true at
// once with the next.
// The access time of a terminal moves with input alone, the modification time with output.
"use strict";

const fs = require("node:fs");
const vscode = require("vscode");
const { isReportThere, notePresence } = require("./channel");

const TICK_MS = 5000;
const WRITE_MS = 10000;
// So often it says that it still notices, also where there is nothing to notice.
const ALIVE_MS = 60000;
const TERMINALS = "/dev/pts";

class Presence {
  #seen = { at: 0, source: "" };
  #written = 0;
  #aliveAt = 0;
  #triedAt = 0;
  #terminals = new Map();
  #state = vscode.window.state;

  /** Start to notice; returns what ends it. */
  watch() {
    this.#lookAtTerminals();
    this.#note("opened");
    const { Keyboard, Mouse } = vscode.TextEditorSelectionChangeKind;
    const timer = setInterval(() => this.#tick(), TICK_MS);
    return [
      { dispose: () => clearInterval(timer) },
      vscode.window.onDidChangeWindowState((state) => this.#changed(state)),
      vscode.window.onDidChangeTextEditorSelection((event) => [Keyboard, Mouse].includes(event.kind) && this.#note("cursor")),
    ];
  }

  /** Becoming active or focused is an event; staying so is not, and ceasing to be so is none either. */
  #changed(state) {
    const { active, focused } = this.#state;
    this.#state = state;
    if ((state.active && !active) || (state.focused && !focused)) this.#note("window");
  }

  #tick() {
    const input = Math.min(this.#lookAtTerminals(), Date.now());
    if (input > this.#seen.at) this.#note("terminal", input);
    if (vscode.window.state.active) this.#note("window");
    // Somebody wiped it; what was last seen is still true.
    if (this.#written && !isReportThere()) this.#written = 0;
    this.#write(Date.now() - this.#aliveAt >= ALIVE_MS);
  }

  #note(source, at = Date.now()) {
    this.#seen = { at, source };
    this.#write();
  }

  /** At most one write in ten seconds; what comes in between is written by a later tick. */
  async #write(anyway = false) {
    const { at, source } = this.#seen;
    if ((at <= this.#written && !anyway) || Date.now() - this.#triedAt < WRITE_MS) return;
    this.#triedAt = Date.now();
    try {
      await notePresence(at, source);
      this.#written = at;
      this.#aliveAt = Date.now();
    } catch {
      // No folder, or no room in it: nothing is reported, and connections count instead.
    }
  }

  /** The newest input of any terminal since the last look. One that is new here is no input: it was only opened. */
  #lookAtTerminals() {
    const looked = new Map();
    let newest = 0;
    for (const name of namesIn(TERMINALS)) {
      const found = /^\d+$/.test(name) ? timesOf(`${TERMINALS}/${name}`) : null;
      if (!found) continue;
      // Numbers are used again; a terminal that was opened since has another change time.
      const key = `${name} ${found.ctimeMs}`;
      looked.set(key, found.atimeMs);
      if (found.atimeMs > (this.#terminals.get(key) ?? Infinity)) newest = Math.max(newest, found.atimeMs);
    }
    this.#terminals = looked;
    return newest;
  }
}

function namesIn(folder) {
  try {
    return fs.readdirSync(folder);
  } catch {
    return [];
  }
}

function timesOf(file) {
  try {
    return fs.statSync(file);
  } catch {
    return null; // closed meanwhile
  }
}

module.exports = { Presence };
