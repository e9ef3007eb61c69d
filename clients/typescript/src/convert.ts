/**
 * The one place that translates between the wire and the client's types. A message of the wire shows its secrets, so
 * none is kept longer than it takes to read it.
 */

import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampDate, type Timestamp } from "@bufbuild/protobuf/wkt";
import { status, type ServiceError } from "@grpc/grpc-js";
import { EquabotError } from "./errors.js";
import * as pb from "./gen/equabot/broker/v1/broker_pb.js";
import type { Answered, EventKind, Lease, LeaseEvent, LeaseRequest, Outcome, Profile } from "./lease.js";
import { Secret, secretMap } from "./secret.js";
import { errorInfo, TRAILER } from "./status.js";

const DOMAIN = "equabot.dev";

export function acquireRequest(request: LeaseRequest): pb.AcquireLeaseRequest {
  const { provider, profile, ttlMs, ...rest } = request;
  const alone = profile === undefined && provider.includes(":");
  return create(pb.AcquireLeaseRequestSchema, {
    provider: alone ? "" : provider,
    profile: (alone ? provider : profile) ?? "",
    session: rest.session ?? "",
    model: rest.model ?? "",
    delivery: rest.delivery ?? "",
    succeeds: rest.succeeds ?? "",
    client: rest.client ?? "",
    holder: rest.holder ?? "",
    ...duration("ttl", ttlMs),
  });
}

export function renewRequest(leaseId: string, ttlMs?: number): pb.RenewLeaseRequest {
  return create(pb.RenewLeaseRequestSchema, { leaseId, ...duration("ttl", ttlMs) });
}

export function revokeRequest(leaseId: string): pb.RevokeLeaseRequest {
  return create(pb.RevokeLeaseRequestSchema, { leaseId });
}

export function reportRequest(lease: Lease, outcome: Outcome, answered: Answered): pb.ReportOutcomeRequest {
  return create(pb.ReportOutcomeRequestSchema, {
    leaseId: lease.id,
    outcome: pb.Outcome[outcome],
    version: BigInt(lease.version),
    model: answered.model ?? "",
    aboutRequest: answered.aboutRequest ?? false,
    ...duration("retryAfter", answered.retryAfterMs),
    ...duration("elapsed", answered.elapsedMs),
  });
}

export function lease(message: pb.Lease): Lease {
  return Object.freeze({
    id: message.id,
    provider: message.provider,
    profile: message.profile,
    mode: message.mode,
    delivery: message.delivery,
    secret: new Secret(message.secret),
    headers: secretMap(message.headers),
    env: secretMap(message.env),
    baseUrl: message.baseUrl,
    issuedAt: instant(message.issuedAt),
    expiresAt: instant(message.expiresAt),
    maxExpiresAt: instant(message.maxExpiresAt),
    credentialExpiresAt: optional(message.credentialExpiresAt),
    renewable: message.renewable,
    version: Number(message.version),
    notice: message.notice,
  });
}

export function event(message: pb.LeaseEvent): LeaseEvent {
  const name = pb.LeaseEvent_Kind[message.kind];
  return Object.freeze({
    kind: name === undefined || name === "KIND_UNSPECIFIED" ? "UNKNOWN" : (name as EventKind),
    lease: message.lease && lease(message.lease),
    reason: message.reason,
    leaseId: message.leaseId,
  });
}

export function profile(message: pb.ProfileStatus): Profile {
  const cooldowns = Object.entries(message.modelCooldowns).map(([model, until]) => [model, instant(until)] as const);
  return Object.freeze({
    id: message.id,
    provider: message.provider,
    mode: message.mode,
    source: message.source,
    state: message.state,
    reason: message.reason,
    next: message.next,
    usable: message.usable,
    pinned: message.pinned,
    label: message.label,
    expiresAt: optional(message.expiresAt),
    cooldownUntil: optional(message.cooldownUntil),
    disabledUntil: optional(message.disabledUntil),
    disabledReason: message.disabledReason,
    lastUsedAt: optional(message.lastUsedAt),
    retryAt: optional(message.retryAt),
    modelCooldowns: Object.freeze(Object.fromEntries(cooldowns)),
    baseUrl: message.baseUrl,
    version: Number(message.version),
  });
}

/** The failure of a call, as the error of its reason. */
export function error(raised: ServiceError, address: string): EquabotError {
  const details = raised.details || raised.message;
  const trailer = raised.metadata?.get(TRAILER)[0];
  const info = typeof trailer === "object" ? errorInfo(trailer, DOMAIN) : undefined;
  if (info) return new EquabotError(info.reason, details, info);
  switch (raised.code) {
    case status.UNAVAILABLE:
    case status.CANCELLED:
      return unavailable(address, details);
    case status.DEADLINE_EXCEEDED:
      return new EquabotError("DEADLINE_EXCEEDED", `the broker at ${address} did not answer in time`);
    case status.UNIMPLEMENTED:
      return new EquabotError("UNIMPLEMENTED", `what answers at ${address} does not know this call: ${details}`);
    case status.RESOURCE_EXHAUSTED:
      // gRPC refuses a message that is too large before the broker sees it, so without a reason of the broker.
      if (details.includes("larger than max")) {
        return new EquabotError("INVALID_ARGUMENT", "the request is larger than the broker accepts: shorten its names");
      }
  }
  return new EquabotError("UNEXPECTED", `${address} answered ${status[raised.code] ?? raised.code}: ${details}`);
}

/** No broker is there, with what to do. */
export function unavailable(address: string, details: string): EquabotError {
  const code = /\b(?:ECONNREFUSED|ENOENT|EACCES|ETIMEDOUT|EHOSTUNREACH|ECONNRESET|EPIPE)\b/.exec(details)?.[0];
  const remedy = remedyFor(address, code, details);
  const metadata = { address, remedy };
  const message = `no broker answers at ${address}: ${remedy} (${code ?? details})`;
  return new EquabotError("BROKER_UNAVAILABLE", message, { metadata });
}

function remedyFor(address: string, code: string | undefined, details: string): string {
  if (address.startsWith("unix:")) {
    if (code === "EACCES") {
      const user = process.geteuid?.() ?? "?";
      return `this user (${user}) may not open it. Run as the broker's user, or in the group of the socket's directory`;
    }
    return (
      "start one with `equabot serve`, or mount its socket here. EQUABOT_BROKER_ADDRESS or EQUABOT_RUN_DIR names " +
      "another place"
    );
  }
  if (/certificate|self.signed|altname|verif/i.test(details)) {
    return "its certificate is not trusted. Check that caFile holds the authority that signed it and that it names this host";
  }
  return "check that one runs there, that this pod may reach it, and whether it wants a client certificate";
}

function instant(stamp: Timestamp | undefined): Date {
  return stamp ? timestampDate(stamp) : new Date(0);
}

function optional(stamp: Timestamp | undefined): Date | undefined {
  return stamp && timestampDate(stamp);
}

function duration<Name extends string>(name: Name, ms: number | undefined) {
  if (ms === undefined) return {};
  if (!Number.isFinite(ms)) throw new EquabotError("INVALID_ARGUMENT", `${name} is not a number of milliseconds`);
  return { [name]: durationFromMs(Math.round(ms)) } as Record<Name, ReturnType<typeof durationFromMs>>;
}
