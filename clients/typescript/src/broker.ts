/** A broker, and how to connect to it. */

import { create } from "@bufbuild/protobuf";
import { inspect } from "node:util";
import type { Environ } from "./address.js";
import { Channel } from "./channel.js";
import * as convert from "./convert.js";
import { Credential } from "./credential.js";
import { Broker as Service, ListProfilesRequestSchema, PinProfileRequestSchema } from "./gen/equabot/broker/v1/broker_pb.js";
import { UnpinProfileRequestSchema } from "./gen/equabot/broker/v1/broker_pb.js";
import type { Hooks, Keeper } from "./keeper.js";
import { goingOnFrom, type Answered, type Lease, type LeaseEvent, type Outcome, type Profile, type Wanted } from "./lease.js";
import { Files, type Security } from "./security.js";

const TIMEOUT_MS = 10_000;

export interface ConnectOptions extends Security {
  /**
   * `unix:/path/broker.sock`, a path, or `host:port` of a broker in another pod. By default `EQUABOT_BROKER_ADDRESS`,
   * else the socket of the agent in the run directory.
   */
  address?: string;
  /** Whose socket it is. The default is `main`. Over TCP the token or certificate says which agent calls. */
  agent?: string;
  /** The longest time that a call, or a wait for a lease, takes. The default is 10,000. */
  timeoutMs?: number;
  /** The environment to read in place of `process.env`. */
  environ?: Environ;
}

/** A broker. It is not called before the first use. Throws TypeError for what is not an address. */
export function connect(options: string | ConnectOptions = {}): Broker {
  return new Broker(typeof options === "string" ? { address: options } : options);
}

/** The broker's API. Every method throws EquabotError, by reason, and answers within the timeout. */
export class Broker implements AsyncDisposable {
  readonly #channel: Channel;
  readonly #timeoutMs: number;
  readonly #keepers = new Set<Keeper>();

  /** Use `connect`. */
  constructor(options: ConnectOptions) {
    const { address, agent = "main", timeoutMs = TIMEOUT_MS, environ = process.env } = options;
    if (!(timeoutMs > 0)) throw new TypeError("timeoutMs: expected a number of milliseconds above 0");
    this.#channel = new Channel({ address, agent, environ, files: new Files(options, environ) });
    this.#timeoutMs = timeoutMs;
  }

  /** Where the broker is. */
  get address(): string {
    return this.#channel.target;
  }

  /** A credential that stays current, of a provider (`anthropic`) or of one profile (`anthropic:work`). */
  credential(provider: string, options: Wanted & Hooks = {}): Credential {
    const { onRotate, onEnd, ...wanted } = options;
    const hooks = { ...(onRotate && { onRotate }), ...(onEnd && { onEnd }) };
    const kept = { timeoutMs: this.#timeoutMs, keepers: this.#keepers, ...hooks };
    return new Credential(this.#channel, { ...wanted, provider }, kept);
  }

  /** Grants a lease. It is not renewed: for longer work use `credential`. */
  async acquire(provider: string, wanted: Wanted = {}): Promise<Lease> {
    const request = convert.acquireRequest({ ...wanted, provider });
    return convert.lease(await this.#channel.ask(Service.method.acquireLease, request, this.#timeoutMs));
  }

  /** Runs `work` with a lease, and returns the lease to the broker at its end. */
  async withLease<T>(provider: string, work: (lease: Lease) => Promise<T> | T, wanted: Wanted = {}): Promise<T> {
    const lease = await this.acquire(provider, wanted);
    try {
      return await work(lease);
    } finally {
      await this.revoke(lease).catch(() => undefined); // the lease expires by itself
    }
  }

  /** A lease that lives as long as the iteration, and what happens to it. Most agents want `credential`. */
  async *stream(provider: string, wanted: Wanted = {}): AsyncGenerator<LeaseEvent, void, void> {
    const stream = this.#channel.stream({ ...wanted, provider });
    const target = this.#channel.target;
    try {
      let event = await stream.read({ timeoutMs: this.#timeoutMs, target });
      while (event !== undefined) {
        yield event;
        event = await stream.read({ target });
      }
    } finally {
      stream.cancel();
    }
  }

  /** The lease with a longer life and the newest material. */
  async renew(lease: Lease | string, options: { ttlMs?: number } = {}): Promise<Lease> {
    const request = convert.renewRequest(idOf(lease), options.ttlMs);
    const renewed = convert.lease(await this.#channel.ask(Service.method.renewLease, request, this.#timeoutMs));
    return typeof lease === "string" ? renewed : goingOnFrom(renewed, lease);
  }

  /** Ends a lease. True: it was active. Idempotent. */
  async revoke(lease: Lease | string): Promise<boolean> {
    const request = convert.revokeRequest(idOf(lease));
    return (await this.#channel.ask(Service.method.revokeLease, request, this.#timeoutMs)).revoked;
  }

  /** Reports how the provider answered a request that used the lease. True: `renew` now returns other material. */
  async report(lease: Lease, outcome: Outcome, answered: Answered = {}): Promise<boolean> {
    const request = convert.reportRequest(lease, outcome, answered);
    return (await this.#channel.ask(Service.method.reportOutcome, request, this.#timeoutMs)).changed;
  }

  /** This agent's candidate profiles in the order in which they are tried, without their secrets. */
  async listProfiles(
    provider = "",
    options: Pick<Wanted, "session" | "client" | "model"> = {},
  ): Promise<readonly Profile[]> {
    const { session = "", client = "", model = "" } = options;
    const request = create(ListProfilesRequestSchema, { provider, session, client, model });
    return (await this.#channel.ask(Service.method.listProfiles, request, this.#timeoutMs)).profiles.map(convert.profile);
  }

  /** Makes a session try one profile first. `strict`: while it is in cooldown, no other serves. */
  async pin(session: string, provider: string, options: { profile: string; strict?: boolean }): Promise<void> {
    const request = create(PinProfileRequestSchema, { session, provider, ...options });
    await this.#channel.ask(Service.method.pinProfile, request, this.#timeoutMs);
  }

  /** Removes the pin of a session. Idempotent. */
  async unpin(session: string, provider: string): Promise<void> {
    const request = create(UnpinProfileRequestSchema, { session, provider });
    await this.#channel.ask(Service.method.unpinProfile, request, this.#timeoutMs);
  }

  /** Closes every credential of this broker, and the connection. Idempotent. */
  async close(): Promise<void> {
    await Promise.all([...this.#keepers].map((keeper) => keeper.stop()));
    this.#keepers.clear();
    this.#channel.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [inspect.custom](): string {
    return `<Broker at ${this.address}>`;
  }
}

function idOf(lease: Lease | string): string {
  return typeof lease === "string" ? lease : lease.id;
}
