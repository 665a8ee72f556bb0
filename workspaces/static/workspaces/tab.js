// In the editor's own page, before anything else: when the workspace behind a tab is gone, the tab says when and why, and
// offers to resume. It watches the editor's connections instead of asking all the time, and starts nothing by itself.
"use strict";

(() => {
  const BASE = location.pathname.match(/^\/code\/user\/[1-9][0-9]*\//)?.[0];
  if (!BASE) return;
  const STATUS = `${BASE}_gunpowder/status`;
  const START = `${BASE}_gunpowder/start`;
  const RETRY_MS = [1000, 2000, 4000, 8000, 15000, 30000];
  const CLOSED_MS = 300;
  const FOLLOW_MS = 1000;
  const WATCH_MS = 5000;
  const TIMEOUT_MS = 10000;

  const sockets = new Set();
  let startedAt = null; // of the container that this page was loaded from
  let checking = false;
  let checkAgain = false;
  let round = 0; // what was asked before the button was pressed is old news after it
  let wake = 0;
  let tries = 0;
  let resuming = false; // somebody pressed the button here
  let overlay = null;

  const isVisible = () => document.visibilityState === "visible";

  // --- asking ------------------------------------------------------------------------------------------------------

  /** Look at once; several causes within a moment are one look. */
  function check() {
    clearTimeout(wake);
    checkAgain = checking;
    if (checking) return;
    checking = true;
    look().finally(() => {
      checking = false;
      if (checkAgain) check();
    });
  }

  /** Look in a while. A hidden tab asks for nothing: it looks when somebody turns to it. */
  function later(milliseconds) {
    clearTimeout(wake);
    if (isVisible()) wake = setTimeout(check, milliseconds);
  }

  async function look() {
    const asked = round;
    let response;
    let workspace;
    try {
      response = await fetch(STATUS, {
        headers: { Accept: "application/json" },
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      if (response.ok) workspace = await response.json();
    } catch {
      again();
      return;
    }
    if (asked !== round) return;
    if (response.status === 401) loggedOut();
    else if (response.status === 404) notYours();
    else if (!workspace) again();
    else {
      tries = 0;
      judge(workspace);
    }
  }

  /** The platform or the network is away: the editor says that itself, and we only keep looking. */
  function again() {
    later(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]);
    tries += 1;
  }

  function judge(workspace) {
    const { state } = workspace;
    if (state === "running") runs(workspace);
    else if (state === "starting") starting(workspace);
    else if (state === "stopping") stopping();
    else if (state === "failed") failed(workspace);
    else stopped(workspace);
    if (overlay) later(["starting", "stopping"].includes(state) ? FOLLOW_MS : WATCH_MS);
  }

  // --- what is shown -----------------------------------------------------------------------------------------------

  function clock(iso) {
    const moment = new Date(iso);
    const time = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" }).format(moment);
    if (moment.toDateString() === new Date().toDateString()) return time;
    return `${new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" }).format(moment)}, ${time}`;
  }

  function runs({ started_at: at }) {
    if (resuming) {
      location.reload();
    } else if (startedAt && at !== startedAt) {
      show({
        title: `It was restarted at ${clock(at)}`,
        lines: ["This tab belongs to the editor before that. Your files are as you left them."],
        button: "Reload",
        act: () => location.reload(),
      });
    } else {
      startedAt = at;
      hide();
    }
  }

  function starting({ queued_position: place, queued_for: what, queued_seconds: seconds }) {
    const soon = what === "memory" ? ", until the machine has memory free" : seconds ? `, about ${seconds} s` : "";
    const line = place ? `Place ${place} in the queue${soon}.` : "This takes a few seconds.";
    show({ title: "Starting your editor…", lines: [line] });
  }

  function stopping() {
    show({ title: "Stopping your editor…", lines: ["Your files are kept."] });
  }

  function stopped({ stopped_at: at, decision, explanation, stop_sentence: sentence }) {
    resuming = false;
    // What ended from outside may still carry the last decision that spared it.
    const decided = decision && decision.verdict !== "stop" ? "" : explanation;
    const why = decided || sentence || "";
    show({
      title: at ? `Stopped at ${clock(at)}` : "Stopped",
      lines: [why, why.includes("files") ? "" : "Your files are as you left them."],
      button: "Resume",
      act: resume,
    });
  }

  function failed({ error }) {
    resuming = false;
    show({
      title: "Your editor has stopped",
      lines: [error?.message ?? "It could not be kept running. Your files are untouched."],
      button: "Try again",
      act: resume,
    });
  }

  /** An open editor goes on working until its connection ends; only then there is something to say. */
  function loggedOut() {
    resuming = false;
    if ([...sockets].some(({ readyState }) => readyState === WebSocket.OPEN)) return;
    show({
      title: "You were logged out",
      lines: ["Logging out stops nothing, but the editor may have been stopped meanwhile. Log in to see how it stands."],
      button: "Log in",
      href: `/login?next=${encodeURIComponent(BASE)}`,
    });
    later(WATCH_MS);
  }

  function notYours() {
    resuming = false;
    show({
      title: "This editor is not yours",
      lines: ["In this browser somebody else is logged in now. Their own editor is in the Code Editor tab."],
    });
    later(WATCH_MS);
  }

  async function resume() {
    resuming = true;
    starting({});
    round += 1;
    const problem = await askForStart();
    round += 1;
    if (!resuming) return;
    if (problem) {
      resuming = false;
      show({ title: "Not started", lines: [problem], button: "Try again", act: resume });
    } else {
      later(FOLLOW_MS);
    }
  }

  /** Ask for the start; returns what went wrong, for a person, or "". */
  async function askForStart() {
    try {
      const response = await fetch(START, { method: "POST", cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (response.status === 401) loggedOut();
      if (response.ok || response.status === 401) return "";
      const { message } = await response.json().catch(() => ({}));
      return message ?? `The server answered with error ${response.status}. Try again in a moment.`;
    } catch {
      return "The server did not answer. Check your connection and try again.";
    }
  }

  // --- the overlay -------------------------------------------------------------------------------------------------

  // The colours of the other pages, gunpowder.css; that sheet's rules would meet the editor's own.
  const STYLE = `
    :host { all: initial; color-scheme: light dark; --card: #fff; --ink: #231e1a; --muted: #62594f; --line: #e2dbd2;
      --accent: #b23c0b; --accent-strong: #8f2f07; --on-accent: #fff; --focus: #1a56db; --keg: #5b4636; --hoop: #e9ded2;
      --fuse: #85776a; --spark: #e2610f; }
    @media (prefers-color-scheme: dark) {
      :host { --card: #221e1b; --ink: #f3eee8; --muted: #b8aea3; --line: #3b352f; --accent: #ff9d5c;
        --accent-strong: #ffb785; --on-accent: #2b1303; --focus: #8ab4ff; --keg: #a58a72; --hoop: #2f2721;
        --fuse: #9a8b7c; --spark: #ff8a3c; }
    }
    .veil { position: fixed; inset: 0; z-index: 2147483647; display: grid; grid-template-columns: minmax(0, 34rem);
      place-content: center; padding: 1rem; overflow: auto; background: rgb(20 16 12 / 66%); color: var(--ink);
      font: 1rem/1.55 -apple-system, "Segoe UI", Ubuntu, Cantarell, "Noto Sans", Roboto, "Liberation Sans", sans-serif; }
    .card { padding: 1.5rem; border: 1px solid var(--line); border-radius: 14px; background: var(--card);
      box-shadow: 0 12px 48px rgb(0 0 0 / 32%); overflow-wrap: anywhere; }
    .brand { margin: 0 0 0.75rem; color: var(--muted); font-size: 0.875rem; font-weight: 600; }
    h1 { margin: 0; font-size: 1.625rem; line-height: 1.25; letter-spacing: -0.01em; }
    .line { margin: 0.75rem 0 0; }
    .actions { display: flex; flex-wrap: wrap; align-items: center; gap: 0.75rem; margin-top: 1.25rem; }
    a, button { font: inherit; border-radius: 10px; }
    a { color: var(--accent); text-underline-offset: 0.18em; }
    a:hover { color: var(--accent-strong); }
    .primary, .quiet { display: inline-flex; align-items: center; justify-content: center; box-sizing: border-box;
      min-height: 2.75rem; padding: 0.5rem 0.7rem; border: 1px solid transparent; cursor: pointer; }
    .primary { padding-inline: 1.6rem; background: var(--accent); color: var(--on-accent); font-weight: 600;
      text-decoration: none; }
    .primary:hover { background: var(--accent-strong); color: var(--on-accent); }
    .quiet:first-child { padding-inline: 0; }
    :focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
    h1:focus { outline: none; }
    @media (max-width: 34rem) {
      .card { padding: 1.1rem; }
      .primary, .quiet { flex: 1 1 100%; }
    }
    @media (forced-colors: active) { .primary { border-color: currentcolor; } }`;

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  /** A dialog over the dead editor, which is put out of reach. What is shown already is not shown again. */
  function show({ title, lines, button = "", act = null, href = "" }) {
    const key = JSON.stringify([title, lines, button]);
    if (overlay?.key === key) return;
    const host = overlay?.host ?? element("gunpowder-notice");
    const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
    const before = overlay ? overlay.before : document.activeElement;
    const heading = element("h1", { id: "title", tabIndex: -1 }, title);
    const texts = lines.filter(Boolean).map((text) => element("p", { className: "line" }, text));
    const control = button ? makeControl(button, act, href) : null;
    const tab = element("a", { className: "quiet", href: "/" }, "Code Editor tab");
    const actions = element("div", { className: "actions" }, ...(control ? [control] : []), tab);
    const text = element("div", { id: "text" }, ...texts);
    const card = element("div", { className: "card" }, element("p", { className: "brand" }, "Gunpowder"), heading, text, actions);
    for (const [name, value] of [["role", "dialog"], ["aria-modal", "true"], ["aria-labelledby", "title"], ["aria-describedby", "text"]]) {
      card.setAttribute(name, value);
    }
    root.replaceChildren(element("style", {}, STYLE), element("div", { className: "veil" }, card));
    if (!host.isConnected) document.documentElement.append(host);
    document.body.inert = true;
    overlay = { host, key, before };
    (control ?? heading).focus();
  }

  function makeControl(text, act, href) {
    if (href) return element("a", { className: "primary", href }, text);
    const made = element("button", { type: "button", className: "primary" }, text);
    made.addEventListener("click", act);
    return made;
  }

  function hide() {
    if (!overlay) return;
    const { host, before } = overlay;
    overlay = null;
    host.remove();
    document.body.inert = false;
    before?.focus?.();
  }

  // The editor's own dialogs and key bindings listen on the window; this comes first, so the keys are the overlay's.
  for (const kind of ["keydown", "keypress", "keyup"]) {
    addEventListener(kind, (event) => overlay && event.stopImmediatePropagation(), true);
  }

  // --- when to look ------------------------------------------------------------------------------------------------

  /** The browser's own class in all but this: each new connection is watched. */
  window.WebSocket = new Proxy(window.WebSocket, {
    construct(target, given, newTarget) {
      const socket = Reflect.construct(target, given, newTarget);
      sockets.add(socket);
      socket.addEventListener("close", () => {
        sockets.delete(socket);
        // A dead editor tries to connect for hours; what is shown says all, and is kept up to date in its own time.
        if (!overlay) later(Math.max(CLOSED_MS, tries ? RETRY_MS[Math.min(tries, RETRY_MS.length - 1)] : 0));
      });
      return socket;
    },
  });
  document.addEventListener("visibilitychange", () => isVisible() && check());
  addEventListener("online", check);
  addEventListener("pageshow", (event) => event.persisted && check());
  check();
})();
