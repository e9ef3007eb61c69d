/** The client of the Equabot broker for Node.js. Start with `connect`. */

export { Broker, connect } from "./broker.js";
export type { ConnectOptions } from "./broker.js";
export { Credential } from "./credential.js";
export { EquabotError } from "./errors.js";
export type { ErrorDetails, KnownReason, Reason } from "./errors.js";
export { createFetch } from "./fetch.js";
export type { FetchOptions } from "./fetch.js";
export type { Hooks } from "./keeper.js";
export type { Answered, EventKind, Lease, LeaseEvent, Outcome, Profile, Wanted } from "./lease.js";
export { Secret } from "./secret.js";
export type { SecretMap } from "./secret.js";
export type { Security } from "./security.js";
