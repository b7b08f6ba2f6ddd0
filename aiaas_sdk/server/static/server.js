// Calls to this server. Addresses are relative to the page, so a proxy may put both below a prefix.

export const base = new URL("./", document.baseURI.split("#")[0]).href.replace(/\/$/, "");

let key = "";
export const keyed = () => key !== "";
export function useKey(text) {
  key = text.trim();
}

/** What the server said no to, or that it didn't answer (status 0). */
export class Refused extends Error {
  constructor(status, message, wait = null) {
    super(message);
    this.status = status;
    this.wait = wait;
  }

  /** A short title for people. */
  get title() {
    const known = {
      0: "The server doesn’t answer", 400: "The request doesn’t fit the model", 401: "An API key is needed",
      403: "Not allowed", 404: "Not there", 413: "Too large", 429: "Too many requests", 500: "The model failed",
      502: "The endpoint behind this server failed", 503: "Not available now", 504: "It took too long",
    };
    return known[this.status] ?? `The server answered ${this.status}`;
  }

  /** What to do next, where somebody knows. */
  get advice() {
    if (this.status === 0) return "Is it running, and is the network up? Then run this again.";
    if (this.status === 401) return "Give a key with the button “API key” above.";
    if (this.wait) return `Try again in ${this.wait === 1 ? "a second" : `${this.wait} seconds`}.`;
    if (this.status === 429 || this.status === 503) return "Try again in a moment.";
    if (this.status === 500) return "The server’s log says why.";
    return "";
  }
}

/** A call; it fails with Refused, or with an AbortError where `signal` ended it. */
export async function call(path, { method = "GET", body, signal } = {}) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, { method, headers, body, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The connection failed before there was an answer.");
  }
  if (!reply.ok) throw await refused(reply);
  return reply;
}

async function refused(reply) {
  const text = await reply.text().catch(() => "");
  const wait = Number.parseInt(reply.headers.get("retry-after") ?? "", 10);
  return new Refused(reply.status, worded(text) || `HTTP ${reply.status}`, wait > 0 ? wait : null);
}

function worded(text) {
  try {
    const told = JSON.parse(text);
    return String(told.error?.message ?? told.error ?? told.detail ?? text);
  } catch {
    return text.slice(0, 400);
  }
}

/** What the server itself measured for a reply, in milliseconds, where it tells. */
export function serverTime(reply) {
  const own = Number.parseFloat(reply.headers.get("openai-processing-ms") ?? "");
  if (Number.isFinite(own)) return own;
  const told = /(?:^|[,;\s])dur=([\d.]+)/.exec(reply.headers.get("server-timing") ?? "");
  return told ? Number.parseFloat(told[1]) : null;
}

export const modelPath = (name, version) =>
  `v2/models/${encodeURIComponent(name)}${version ? `/versions/${encodeURIComponent(version)}` : ""}`;
