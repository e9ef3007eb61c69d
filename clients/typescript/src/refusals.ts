/**
 * The broker's refusals as a vendor's own errors, in the form that the gateway gives them (docs/reference/errors.md): an
 * SDK throws its own error class with the broker's text, and retries only where that helps.
 */

import type { EquabotError } from "./errors.js";

const STATUSES: Readonly<Record<string, number>> = {
  LEASE_NOT_FOUND: 401,
  LEASE_EXPIRED: 401,
  PROVIDER_UNKNOWN: 404,
  RATE_LIMITED: 429,
  NO_USABLE_PROFILE: 503,
  REFRESH_FAILED: 503,
  SOURCE_NOT_SYNCED: 503,
  AUDIT_UNAVAILABLE: 503,
  SHUTTING_DOWN: 503,
  BROKER_UNAVAILABLE: 503,
  DEADLINE_EXCEEDED: 503,
};
const TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  429: "rate_limit_error",
  503: "api_error",
};
/** Without a wait of the broker's a retry is of use for these alone. The client has waited for the broker already. */
const AGAIN = ["RATE_LIMITED", "REFRESH_FAILED", "SOURCE_NOT_SYNCED", "AUDIT_UNAVAILABLE", "SHUTTING_DOWN"];
/** After a longer wait than this, some programs sleep for as long, and show nothing. */
const PATIENCE_MS = 60_000;

export function refusalResponse(error: EquabotError, url: URL): Response {
  const status = STATUSES[error.reason] ?? 403;
  const wait = error.retryAfterMs === undefined ? undefined : Math.max(Math.ceil(error.retryAfterMs / 1000), 1);
  const again = error.retryAfterMs === undefined ? AGAIN.includes(error.reason) : error.retryAfterMs <= PATIENCE_MS;
  const message = wait === undefined ? error.message : `${error.message}; try again in ${wait} s`;
  const type = TYPES[status]!;
  // One body that the SDKs of Anthropic and of OpenAI both read.
  const body = { type: "error", error: { type, message, param: null, code: error.reason.toLowerCase() } };
  const headers = new Headers({ "content-type": "application/json", "x-equabot-reason": error.reason });
  if (wait !== undefined) headers.set("retry-after", String(wait));
  if (!again) headers.set("x-should-retry", "false");
  const response = new Response(JSON.stringify(body), { status, headers });
  Object.defineProperty(response, "url", { value: url.href });
  return response;
}
