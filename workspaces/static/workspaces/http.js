// Calls to our own endpoints.

const TIMEOUT_MS = 15000;

function csrfToken() {
  const pair = document.cookie.split("; ").find((part) => part.startsWith("gunpowder_csrf="));
  if (pair) return pair.slice("gunpowder_csrf=".length);
  return document.querySelector("input[name=csrfmiddlewaretoken]")?.value ?? "";
}

/** Any answer comes back as `{ok, status, body}`, errors too; only "no answer at all" throws. */
export async function call(method, url, data) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRFToken"] = csrfToken();
  if (data !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(url, {
    method,
    headers,
    body: data === undefined ? undefined : JSON.stringify(data),
    cache: "no-store",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const body = await response.json().catch(() => ({}));
  return { ok: response.ok, status: response.status, body };
}

/** The sentence of an error answer. */
export function messageOf(answer) {
  return answer.body?.message ?? `The server answered with error ${answer.status}. Try again.`;
}

export const NO_ANSWER = "The server did not answer. Check your connection and try again.";
