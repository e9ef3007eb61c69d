/** What can go wrong between an agent and its broker, by reason. */

/** Each reason, and whether the same call can succeed later without a change of the request or the configuration. */
const RETRYABLE = {
  // The client's own reasons.
  /** No broker listens there, or it went away. */
  BROKER_UNAVAILABLE: true,
  /** Another user can have put the socket there. */
  BROKER_NOT_TRUSTED: false,
  /** Something listens and does not answer in time. */
  DEADLINE_EXCEEDED: true,
  /** An older broker, or a proxy that does not pass the call. */
  UNIMPLEMENTED: false,
  /** What answered is not a broker, or has a fault. */
  UNEXPECTED: false,
  /** A token or a certificate of the client's own is not there yet. */
  FILE_UNREADABLE: true,
  /** The credential or the broker was closed. */
  CLOSED: false,
  // The broker's reasons: see docs/reference/errors.md.
  INVALID_ARGUMENT: false,
  PROVIDER_UNKNOWN: false,
  PROFILE_NOT_FOUND: false,
  NO_USABLE_PROFILE: true,
  POLICY_DENIED: false,
  DELIVERY_NOT_ALLOWED: false,
  AGENT_SUSPENDED: false,
  LEASE_NOT_FOUND: false,
  LEASE_EXPIRED: false,
  LEASE_LIMIT: true,
  RATE_LIMITED: true,
  SOURCE_NOT_SYNCED: true,
  REFRESH_FAILED: true,
  REAUTH_REQUIRED: false,
  AUDIT_UNAVAILABLE: true,
  STATE_UNAVAILABLE: true,
  SHUTTING_DOWN: true,
} as const;

/** The reasons that this version knows. A newer broker can send others. */
export type KnownReason = keyof typeof RETRYABLE;

/** Why a call failed. Compare it with a word of `KnownReason`; treat an unknown one as final unless `retryable` is true. */
export type Reason = KnownReason | (string & {});

export interface ErrorDetails {
  /** Short texts by name, without a secret. */
  metadata?: Readonly<Record<string, string>>;
  /** How long the broker asked to wait. */
  retryAfterMs?: number | undefined;
}

/** A refusal or a failure, with its `reason`. It holds no secret. */
export class EquabotError extends Error {
  override readonly name = "EquabotError";
  readonly reason: Reason;
  /** Whether the same call can succeed later by itself. */
  readonly retryable: boolean;
  /** How long the broker asked to wait, in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** Short texts by name. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(reason: Reason, message: string, details: ErrorDetails = {}) {
    super(message);
    this.reason = reason;
    this.retryAfterMs = details.retryAfterMs;
    this.metadata = Object.freeze({ ...details.metadata });
    // A refusal that goes away by itself carries a wait, also one whose reason is not known here.
    const known = Object.hasOwn(RETRYABLE, reason) ? RETRYABLE[reason as KnownReason] : undefined;
    this.retryable = known ?? details.retryAfterMs !== undefined;
  }

  /** Where no profile could serve: the id of each candidate and why it was not used. Elsewhere empty. */
  get candidates(): Readonly<Record<string, string>> {
    return this.reason === "NO_USABLE_PROFILE" ? this.metadata : {};
  }

  /** The same error with the stack of the caller who is waiting now. */
  again(): EquabotError {
    return new EquabotError(this.reason, this.message, this);
  }
}
