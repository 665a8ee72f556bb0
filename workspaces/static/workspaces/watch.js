// Follows one workspace: an event stream, and polling whenever the stream is not there.

const POLL_MS = 3000;
const REOPEN_MS = 5000;
// A stream that looks alive may have missed something (a proxy, a sleeping laptop); cheap insurance.
const CHECK_MS = 30000;

/**
 * Calls `onWorkspace(object)` with the state now and after each change, `onStage({stage, at})` during a start,
 * `onConnection(alive)` when the server is lost or found, and `onRefused(status)` when it will not tell us any more.
 *
 * `pauseWhenHidden`: a browser allows six connections to one host, and ten forgotten tabs must not use them up.
 */
export function watch({ eventsUrl, statusUrl, onWorkspace, onStage, onConnection, onRefused, pauseWhenHidden }) {
  let stream = null;
  let poll = 0;
  let reopen = 0;
  let closed = false;

  async function refresh() {
    try {
      const response = await fetch(statusUrl, {
        headers: { Accept: "application/json" },
        cache: "no-store",
        signal: AbortSignal.timeout(10000),
      });
      if (closed) return;
      if (response.ok) {
        onConnection(true);
        onWorkspace(await response.json());
      } else if ([401, 403, 404].includes(response.status)) {
        close();
        onRefused(response.status);
      } else {
        onConnection(false);
      }
    } catch {
      if (!closed) onConnection(false);
    }
  }

  function open() {
    clearTimeout(reopen);
    if (closed || stream) return;
    stream = new EventSource(eventsUrl);
    stream.addEventListener("workspace", (event) => onWorkspace(JSON.parse(event.data)));
    stream.addEventListener("progress", (event) => onStage(JSON.parse(event.data)));
    stream.addEventListener("open", () => {
      pollEvery(CHECK_MS);
      onConnection(true);
    });
    stream.addEventListener("error", () => {
      // A dropped connection is opened again by the browser; an error answer closes the stream for good.
      if (stream?.readyState === EventSource.CLOSED) {
        drop();
        reopen = setTimeout(open, REOPEN_MS);
      }
      pollEvery(POLL_MS);
      refresh();
    });
  }

  function pollEvery(milliseconds) {
    clearInterval(poll);
    poll = setInterval(refresh, milliseconds);
  }

  function drop() {
    stream?.close();
    stream = null;
  }

  function pause() {
    drop();
    clearInterval(poll);
    clearTimeout(reopen);
  }

  function resume() {
    pollEvery(POLL_MS); // until the stream is open
    refresh();
    open();
  }

  function onVisibility() {
    if (closed) return;
    if (document.visibilityState === "visible") resume();
    else pause();
  }

  function close() {
    closed = true;
    pause();
    document.removeEventListener("visibilitychange", onVisibility);
  }

  if (pauseWhenHidden) document.addEventListener("visibilitychange", onVisibility);
  // A page that comes back from the browser's back-and-forward cache has a dead stream.
  addEventListener("pagehide", pause);
  addEventListener("pageshow", (event) => event.persisted && !closed && resume());
  if (!pauseWhenHidden || document.visibilityState === "visible") resume();
  return { refresh, close };
}
