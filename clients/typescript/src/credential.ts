/** A credential that stays current. */

import { inspect } from "node:util";
import type { Channel } from "./channel.js";
import * as convert from "./convert.js";
import { EquabotError } from "./errors.js";
import { createFetch } from "./fetch.js";
import { Broker as Service } from "./gen/equabot/broker/v1/broker_pb.js";
import { Keeper, type Hooks } from "./keeper.js";
import type { Answered, Lease, LeaseRequest, Outcome } from "./lease.js";
import type { Secret, SecretMap } from "./secret.js";

const CHANGE_ARRIVES_MS = 2000;
const dropped = new FinalizationRegistry<Keeper>((keeper) => void keeper.stop());

/**
 * A self-renewing lease. Nothing happens before its first use. From then on a stream to the broker keeps it current: a
 * rotation arrives within milliseconds, and after a restart of the broker the client reconnects by itself.
 *
 * It does not keep the process alive. `close()`, the end of the process and the last reference return the lease.
 */
export class Credential implements AsyncDisposable {
  /**
   * `fetch` that gives each request the current credential, and reports to the broker what the provider refused. Pass
   * it to an SDK as its `fetch` option. See `createFetch`.
   */
  readonly fetch: typeof globalThis.fetch;
  readonly #channel: Channel;
  readonly #request: LeaseRequest;
  readonly #timeoutMs: number;
  readonly #keeper: Keeper;
  readonly #forget: () => void;

  /** Use `Broker.credential`. */
  constructor(
    channel: Channel,
    request: LeaseRequest,
    options: { timeoutMs: number; keepers: Set<Keeper> } & Hooks,
  ) {
    const keeper = new Keeper(channel, request, options);
    options.keepers.add(keeper);
    dropped.register(this, keeper);
    this.#forget = () => options.keepers.delete(keeper);
    this.#channel = channel;
    this.#request = request;
    this.#timeoutMs = options.timeoutMs;
    this.#keeper = keeper;
    this.fetch = createFetch(this);
  }

  /** The lease in hand, after a wait of at most the timeout if there is none. Throws EquabotError. */
  async lease(): Promise<Lease> {
    return this.#keeper.current ?? this.#keeper.wait(this.#timeoutMs);
  }

  /** The headers that a request to the provider must carry now. */
  async headers(): Promise<SecretMap> {
    return (await this.lease()).headers;
  }

  /** The secret now. For a `brokered` lease it is the lease token. */
  async secret(): Promise<Secret> {
    return (await this.lease()).secret;
  }

  /** The environment variables that a process started now needs. */
  async env(): Promise<SecretMap> {
    return (await this.lease()).env;
  }

  /** Where requests go: the provider's address, or the gateway's for a `brokered` lease. */
  async baseUrl(): Promise<string> {
    return (await this.lease()).baseUrl;
  }

  /** The next lease with other material than `since`, by default the one in hand. DEADLINE_EXCEEDED if none comes. */
  async waitForChange(options: { since?: Lease; timeoutMs?: number } = {}): Promise<Lease> {
    const since = options.since ?? (await this.lease());
    return this.#keeper.waitForChange(since, options.timeoutMs ?? Number.POSITIVE_INFINITY);
  }

  /**
   * Reports how the provider answered a request that used `lease`. True: the credential now has other material, so a
   * retry is useful.
   */
  async report(outcome: Outcome, answered: Answered & { lease?: Lease } = {}): Promise<boolean> {
    const used = answered.lease ?? (await this.lease());
    const request = convert.reportRequest(used, outcome, answered);
    let changed = false;
    try {
      changed = (await this.#channel.ask(Service.method.reportOutcome, request, this.#timeoutMs)).changed;
    } catch (error) {
      const gone = error instanceof EquabotError && ["LEASE_NOT_FOUND", "LEASE_EXPIRED"].includes(error.reason);
      if (!gone) throw error;
    }
    return this.#keeper.hasOther(used, changed ? CHANGE_ARRIVES_MS : 0);
  }

  /** Returns the lease to the broker. Idempotent. */
  async close(): Promise<void> {
    this.#forget();
    await this.#keeper.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [inspect.custom](): string {
    const lease = this.#keeper.current;
    const wanted = this.#request.profile ?? this.#request.provider;
    return `<Credential ${wanted}: ${lease ? `${lease.profile} until ${lease.expiresAt.toISOString()}` : "no lease in hand"}>`;
  }
}
