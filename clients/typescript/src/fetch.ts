/** `fetch` with a credential, for an agent's own requests and for the SDKs of vendors. */

import { steady } from "./clock.js";
import type { Credential } from "./credential.js";
import { EquabotError } from "./errors.js";
import { sameMaterial, type Lease, type Outcome } from "./lease.js";
import { refusalResponse } from "./refusals.js";

/** Where SDKs put keys of their own. */
const CREDENTIAL_HEADERS = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];
/** What the lease says here is added to what the SDK says. */
const LIST_HEADERS = ["anthropic-beta", "openai-beta"];
const OUTCOMES: Readonly<Record<number, Outcome>> = {
  401: "AUTH",
  402: "BILLING",
  403: "AUTH",
  408: "TIMEOUT",
  429: "RATE_LIMIT",
  529: "RATE_LIMIT",
};
const READ = [400, 401, 403];
const BILLING = /credit balance|insufficient credits/i;
/** How a 401 says that the credential is good, but not for this request. */
const OF_THE_REQUEST = /\bscopes?\b|insufficient.scope|permission/i;
const REDIRECTS = [301, 302, 303, 307, 308];
const MOST_REDIRECTS = 20;
const LONGEST_BODY = 8 << 20;
const LONGEST_NAME = 256;

type Fetch = typeof globalThis.fetch;

export interface FetchOptions {
  /** What sends the requests. The default is the global `fetch`. */
  fetch?: Fetch;
  /** Origins (`https://proxy.example`) that get the key next to that of the lease's `baseUrl`. */
  origins?: readonly string[];
  /**
   * What the broker refuses: `respond` answers with the status and body of a vendor's error, so that an SDK throws its
   * own error class with the broker's text and retries only where that helps. `throw` throws EquabotError.
   */
  refusals?: "respond" | "throw";
}

/**
 * `fetch` with the current credential in place of the caller's key. Only the origin of the lease's `baseUrl` and
 * `origins` get the key; it does not follow a redirect elsewhere. What the provider refuses is reported to the broker,
 * and the request is repeated once if the broker then has another credential.
 */
export function createFetch(credential: Credential, options: FetchOptions = {}): Fetch {
  const wrapped = new CredentialFetch(credential, options);
  return (input, init) => wrapped.fetch(input, init);
}

class CredentialFetch {
  readonly #credential: Credential;
  readonly #options: FetchOptions;
  #failed: Lease | undefined;

  constructor(credential: Credential, options: FetchOptions) {
    this.#credential = credential;
    this.#options = options;
  }

  async fetch(input: string | URL | Request, init: RequestInit = {}): Promise<Response> {
    const request = input instanceof Request ? input : undefined;
    const url = new URL(request?.url ?? String(input));
    const given: RequestInit = request ? fromRequest(request, init) : init;
    const repeatable = given.body === undefined || given.body === null || isRepeatable(given.body);
    for (let last = false; ; last = true) {
      let lease: Lease;
      try {
        lease = await until(this.#credential.lease(), given.signal);
      } catch (error) {
        if (!(error instanceof EquabotError) || this.#options.refusals === "throw") throw error;
        return refusalResponse(error, url);
      }
      const began = steady();
      const { response, keyed } = await this.#follow(url, given, lease);
      if (!keyed) return response; // the key was not part of it
      const text = READ.includes(response.status) ? await response.clone().text() : "";
      const changed = await this.#reported(response, text, { lease, given, elapsedMs: steady() - began });
      if (last || !changed || !repeatable) return response;
      await response.body?.cancel();
    }
  }

  /** Sends the request and follows redirects as the caller asked. The key goes to trusted origins only. */
  async #follow(url: URL, given: RequestInit, lease: Lease): Promise<{ response: Response; keyed: boolean }> {
    const send = this.#options.fetch ?? globalThis.fetch;
    let init = given;
    for (let count = 0; ; count += 1) {
      const keyed = this.#isTrusted(url, lease);
      const headers = keyed ? carrying(init.headers, lease) : new Headers(init.headers);
      const response = await send(url, { ...init, headers, redirect: "manual" });
      const location = REDIRECTS.includes(response.status) ? response.headers.get("location") : null;
      if (location === null || init.redirect === "manual") return { response, keyed };
      if (init.redirect === "error" || count >= MOST_REDIRECTS) throw new TypeError("fetch failed: unexpected redirect");
      await response.body?.cancel();
      const next = new URL(location, url);
      if (!["http:", "https:"].includes(next.protocol)) throw new TypeError("fetch failed: redirect to another scheme");
      init = redirected(init, response.status, { from: url, to: next });
      url = next;
    }
  }

  /** Tells the broker of a failure, or of the first success after one. True: it has another credential now. */
  async #reported(
    response: Response,
    text: string,
    used: { lease: Lease; given: RequestInit; elapsedMs: number },
  ): Promise<boolean> {
    const { lease, given, elapsedMs } = used;
    const status = response.status;
    let outcome = [400, 403].includes(status) && BILLING.test(text) ? "BILLING" : OUTCOMES[status];
    if (outcome !== undefined) {
      this.#failed = lease;
    } else if (response.ok && this.#failed !== undefined && sameMaterial(lease, this.#failed)) {
      outcome = "OK";
      this.#failed = undefined;
    }
    if (outcome === undefined) return false;
    const aboutRequest = status === 403 || (status === 401 && OF_THE_REQUEST.test(text));
    const answered = { lease, elapsedMs, aboutRequest, model: model(given.body), retryAfterMs: retryAfterMs(response.headers) };
    // The provider's answer matters more to the caller than a report that failed.
    return this.#credential.report(outcome, answered).catch(() => false);
  }

  #isTrusted(url: URL, lease: Lease): boolean {
    return [lease.baseUrl, ...(this.#options.origins ?? [])].some((text) => text && new URL(text).origin === url.origin);
  }
}

function carrying(given: RequestInit["headers"], lease: Lease): Headers {
  const headers = new Headers(given);
  for (const name of CREDENTIAL_HEADERS) headers.delete(name);
  for (const [name, value] of Object.entries(lease.headers)) {
    if (LIST_HEADERS.includes(name.toLowerCase())) {
      const words = [...(headers.get(name) ?? "").split(","), ...value.split(",")].map((word) => word.trim());
      headers.set(name, [...new Set(words.filter(Boolean))].join(","));
    } else {
      headers.set(name, value);
    }
  }
  return headers;
}

/** The parts of a Request, with what `init` overrides. Its body is a stream, which can be sent once. */
function fromRequest(request: Request, init: RequestInit): RequestInit {
  const { method, headers, body, redirect, signal } = request;
  const streamed = body === null ? {} : { body, duplex: "half" };
  return { method, headers, redirect, signal, ...streamed, ...init } as RequestInit;
}

/** The next request, as the Fetch standard changes it. A caller's own key does not go to another origin either. */
function redirected(init: RequestInit, status: number, way: { from: URL; to: URL }): RequestInit {
  const method = (init.method ?? "GET").toUpperCase();
  const headers = new Headers(init.headers);
  if (way.from.origin !== way.to.origin) for (const name of [...CREDENTIAL_HEADERS, "cookie"]) headers.delete(name);
  const asGet = (status === 303 && method !== "HEAD") || ([301, 302].includes(status) && method === "POST");
  if (!asGet) {
    if (init.body && !isRepeatable(init.body)) throw new TypeError("fetch failed: a stream cannot follow a redirect");
    return { ...init, headers };
  }
  for (const name of ["content-type", "content-length", "content-encoding", "content-language"]) headers.delete(name);
  return { ...init, headers, method: "GET", body: null };
}

function isRepeatable(body: unknown): boolean {
  return !(body instanceof ReadableStream) && !(Symbol.asyncIterator in Object(body));
}

/** The model that a request's JSON names. */
function model(body: unknown): string | undefined {
  const text = typeof body === "string" ? body : body instanceof Uint8Array ? Buffer.from(body).toString() : "";
  if (text === "" || text.length > LONGEST_BODY) return undefined;
  try {
    const name: unknown = (JSON.parse(text) as { model?: unknown } | null)?.model;
    const valid = typeof name === "string" && name.length <= LONGEST_NAME && /^[^\p{C}]*$/u.test(name);
    return valid ? name : undefined;
  } catch {
    return undefined;
  }
}

/** RFC 9110, 10.2.3: seconds, or a date. Some vendors send milliseconds in a header of their own. */
function retryAfterMs(headers: Headers): number | undefined {
  const [ms, after] = [headers.get("retry-after-ms"), headers.get("retry-after")];
  if (ms === null && after === null) return undefined;
  const wait = ms !== null ? Number(ms) : Number.isNaN(Number(after)) ? Date.parse(after!) - Date.now() : Number(after) * 1000;
  return Number.isFinite(wait) ? Math.min(Math.max(wait, 0), 2 ** 40) : undefined;
}

/** The promise, or the reason of a signal that aborts before. */
async function until<T>(promise: Promise<T>, signal: AbortSignal | null | undefined): Promise<T> {
  if (!signal) return promise;
  promise.catch(() => undefined);
  signal.throwIfAborted();
  let abort: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
