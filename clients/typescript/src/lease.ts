/** What a broker says, in TypeScript's types. Instants are `Date`, durations are milliseconds. */

import type { Secret, SecretMap } from "./secret.js";
import { sameMap } from "./secret.js";

/** A right to use a credential for a limited time. It can be printed and logged: its secrets hide themselves. */
export interface Lease {
  readonly id: string;
  readonly provider: string;
  /** The selected profile, `provider:name`. */
  readonly profile: string;
  /** `api_key`, `token`, `oauth` or `wif`. */
  readonly mode: string;
  /** `raw`: `secret` is the provider's. `brokered`: it is a token that only the gateway at `baseUrl` can use. */
  readonly delivery: string;
  readonly secret: Secret;
  /** The headers that a request to the provider must carry. */
  readonly headers: SecretMap;
  /** The environment variables that a vendor's SDK needs in a process. */
  readonly env: SecretMap;
  /** Where requests go. It is empty if the provider has no fixed address. */
  readonly baseUrl: string;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  readonly maxExpiresAt: Date;
  readonly credentialExpiresAt: Date | undefined;
  readonly renewable: boolean;
  /** Increases with every change of the material behind the lease. */
  readonly version: number;
  /** A note for a person about the credential. It is empty if there is none. */
  readonly notice: string;
}

/** `UNKNOWN` is an event of a newer broker. */
export type EventKind = "UNKNOWN" | "GRANTED" | "ROTATED" | "RENEWED" | "EXPIRING" | "REVOKED";

/** One event of a streamed lease. */
export interface LeaseEvent {
  readonly kind: EventKind;
  /** Undefined on `REVOKED`. */
  readonly lease: Lease | undefined;
  /** Why, on `REVOKED`; what ends, on `EXPIRING`. */
  readonly reason: string;
  readonly leaseId: string;
}

/** How a provider answered: `AUTH` is 401 or 403, `RATE_LIMIT` 429 or 529, `BILLING` 402, `TIMEOUT` 408, `FORMAT` 400. */
export type Outcome = "OK" | "AUTH" | "RATE_LIMIT" | "BILLING" | "TIMEOUT" | "FORMAT";

/** What a request for a lease can say next to the provider. The broker chooses the rest. */
export interface Wanted {
  /** A profile id: the only profile that may serve. */
  profile?: string;
  /** One conversation of the agent, within which the choice of the profile stays. */
  session?: string;
  /** The model that the requests go to. A profile in cooldown for this model comes after the others. */
  model?: string;
  /** The requested lifetime in milliseconds. */
  ttlMs?: number;
  delivery?: "raw" | "brokered";
  /** The program that the credential is for, such as `claude`. Some vendors accept a credential from one program only. */
  client?: string;
  /** A name for the holder, within the agent. With `brokered` the token of the holder's last lease goes on. */
  holder?: string;
}

/** What a report can say next to the outcome. */
export interface Answered {
  /** What the provider's `retry-after` asked for, in milliseconds. */
  retryAfterMs?: number | undefined;
  /** The model that the request went to. By default the model that the lease was acquired for. */
  model?: string | undefined;
  /** The milliseconds since the request was sent. */
  elapsedMs?: number | undefined;
  /** With `AUTH`: the provider refused only this request (403, or a 401 about scopes). */
  aboutRequest?: boolean | undefined;
}

/** What is known of a profile, without its secret. */
export interface Profile {
  readonly id: string;
  readonly provider: string;
  readonly mode: string;
  readonly source: string;
  /** `ok`, `expiring`, `expired`, `missing`, `invalid`, `rejected` or `reauth_required`. */
  readonly state: string;
  readonly reason: string;
  /** Whether this profile would serve a request now. */
  readonly next: boolean;
  readonly usable: boolean;
  readonly pinned: boolean;
  /** A masked form of the secret. It is empty for an agent that gets brokered leases only. */
  readonly label: string;
  readonly expiresAt: Date | undefined;
  readonly cooldownUntil: Date | undefined;
  readonly disabledUntil: Date | undefined;
  readonly disabledReason: string;
  readonly lastUsedAt: Date | undefined;
  /** When a profile that does not serve is tried again by itself. */
  readonly retryAt: Date | undefined;
  /** The models that the profile is in cooldown for, with the end of each cooldown. */
  readonly modelCooldowns: Readonly<Record<string, Date>>;
  readonly baseUrl: string;
  readonly version: number;
}

/** What an agent asks for. A provider with a colon is a profile id. */
export interface LeaseRequest extends Wanted {
  provider: string;
  /** The id of the lease whose token goes on. */
  succeeds?: string;
}

/** The request for the next lease. A token is in the environment of processes, so it goes on from lease to lease. */
export function requestAfter(request: LeaseRequest, before: Lease | undefined): LeaseRequest {
  return before?.delivery === "brokered" ? { ...request, succeeds: before.id } : request;
}

/** The lease with the token of the one before, where the broker no longer has it: it stores a digest only. */
export function goingOnFrom(lease: Lease, before: Lease | undefined): Lease {
  if (before === undefined || lease.delivery !== "brokered" || lease.secret.reveal() !== "") return lease;
  return Object.freeze({ ...lease, secret: before.secret, headers: before.headers, env: before.env });
}

/** Whether a request carries and means the same with either lease. */
export function sameMaterial(one: Lease, other: Lease | undefined): boolean {
  return (
    other !== undefined &&
    one.profile === other.profile &&
    one.version === other.version &&
    one.baseUrl === other.baseUrl &&
    one.secret.equals(other.secret) &&
    sameMap(one.headers, other.headers) &&
    sameMap(one.env, other.env)
  );
}
