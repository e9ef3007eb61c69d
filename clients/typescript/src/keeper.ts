/**
 * The loop that keeps a credential current, and the one owner of its retries.
 *
 *     round after round:   stream ──GRANTED, ROTATED, RENEWED… ──EXPIRING or REVOKED──▸ next round, at once
 *                            │ what answers cannot stream
 *                            ▾
 *                          acquire ──renew at two thirds of what is left… ──▸ next round
 *
 * A jittered pause follows a round that fails. What is in hand is served until its lease ends. The Python client has the
 * same loop in `_keeping.py`; a change of one belongs in the other.
 */

import type { Channel, EventStream } from "./channel.js";
import { awake, Signal, steady } from "./clock.js";
import * as convert from "./convert.js";
import { Ending } from "./ending.js";
import { EquabotError } from "./errors.js";
import { Broker as Service } from "./gen/equabot/broker/v1/broker_pb.js";
import { goingOnFrom, requestAfter, sameMaterial, type Lease, type LeaseRequest } from "./lease.js";
import { Pace } from "./pace.js";

/** What a caller who waits for a first lease waits out. Any other error reaches the caller at once. */
const WAITED_OUT = ["BROKER_UNAVAILABLE", "DEADLINE_EXCEEDED", "SHUTTING_DOWN", "SOURCE_NOT_SYNCED", "RATE_LIMITED"];
/** Ends of a lease after which its material is used until it expires. After others it is not. */
const SERVED_ON = ["shutting_down", "max_ttl", "expired"];
/** The part of a streamed lease's life after which the broker's renewal is missed. It comes at two thirds. */
const OVERDUE = 0.9;
/** A round that lasted so long, or half of its lease's life, was no failure. */
const SETTLED_MS = 5000;
const SHORTEST_PAUSE_MS = 50;
const REVOKE_MS = 1000;

/** A lease in hand, in instants of the steady clock: when it was granted, when its renewal is due, when it ends. */
interface Held {
  readonly lease: Lease;
  readonly since: number;
  readonly due: number;
  readonly until: number;
}

export interface Hooks {
  /** Called with the new lease when what a request carries changes. */
  onRotate?: (lease: Lease) => void;
  /**
   * Called with a reason when what a process was given at its start is over: the lease was taken away (`revoked`,
   * `agent_suspended`, …), or its token does not go on.
   */
  onEnd?: (reason: string) => void;
}

export class Keeper {
  readonly #channel: Channel;
  readonly #request: LeaseRequest;
  readonly #timeoutMs: number;
  readonly #hooks: Hooks;
  readonly #ending: Ending;
  readonly #news = new Signal();
  readonly #needed = new Signal();
  #running: Promise<void> | undefined;
  #closed = false;
  #held: Held | undefined;
  #last: Lease | undefined;
  #error: EquabotError | undefined;
  #failures = 0;
  #streams: EventStream[] = [];
  #unstreamed = "";

  constructor(channel: Channel, request: LeaseRequest, options: { timeoutMs: number } & Hooks) {
    this.#channel = channel;
    this.#request = request;
    this.#timeoutMs = options.timeoutMs;
    this.#hooks = options;
    this.#ending = new Ending((reason) => safely(() => this.#hooks.onEnd?.(reason)));
  }

  /** The lease in hand. Undefined if there is none, or if it has ended. */
  get current(): Lease | undefined {
    return this.#held !== undefined && steady() < this.#held.until ? this.#held.lease : undefined;
  }

  /** The lease in hand, after a wait if there is none. */
  async wait(timeoutMs: number): Promise<Lease> {
    this.#start();
    const deadline = steady() + timeoutMs;
    const failures = this.#failures;
    if (this.current === undefined) this.#needed.notify();
    for (;;) {
      this.#check();
      const current = this.current;
      if (current !== undefined) return current;
      const error = this.#error;
      if (error !== undefined && this.#failures > failures && !WAITED_OUT.includes(error.reason)) throw error.again();
      const left = deadline - steady();
      if (left <= 0) throw error?.again() ?? this.#tooLate(timeoutMs);
      await this.#news.wait(left);
    }
  }

  /** Other material than that of `since`. */
  async waitForChange(since: Lease, timeoutMs: number): Promise<Lease> {
    this.#start();
    const deadline = steady() + timeoutMs;
    for (;;) {
      this.#check();
      const current = this.current;
      if (current !== undefined && !sameMaterial(current, since)) return current;
      const left = deadline - steady();
      if (left <= 0) throw new EquabotError("DEADLINE_EXCEEDED", `nothing changed within ${timeoutMs} ms`);
      await this.#news.wait(left);
    }
  }

  /** Whether other material than `used` is in hand, or comes within so many milliseconds. */
  async hasOther(used: Lease, patienceMs: number): Promise<boolean> {
    if (patienceMs > 0) this.#needed.notify();
    try {
      await this.waitForChange(used, patienceMs);
      return true;
    } catch (error) {
      if (error instanceof EquabotError && error.reason === "DEADLINE_EXCEEDED") return false;
      throw error;
    }
  }

  /** Ends the loop and returns the lease. Callers who wait get CLOSED. Idempotent. */
  async stop(): Promise<void> {
    const first = !this.#closed;
    this.#closed = true;
    this.#held = undefined;
    for (const stream of this.#streams) stream.cancel();
    this.#news.notify();
    this.#needed.notify();
    if (this.#running !== undefined) await awake(this.#running);
    if (!first || this.#unstreamed === "") return;
    const timeoutMs = Math.min(this.#timeoutMs, REVOKE_MS);
    await this.#channel
      .ask(Service.method.revokeLease, convert.revokeRequest(this.#unstreamed), timeoutMs)
      .catch(() => undefined); // the lease expires by itself
  }

  #start(): void {
    this.#check();
    this.#running ??= this.#keep().catch((fault: unknown) => {
      const kind = fault instanceof Error ? fault.name : typeof fault;
      this.#failed(new EquabotError("UNEXPECTED", `this credential is no longer kept current: a fault in the client (${kind})`));
    });
  }

  #check(): void {
    if (this.#closed) throw new EquabotError("CLOSED", "this credential was closed");
  }

  #tooLate(timeoutMs: number): EquabotError {
    const target = this.#channel.target;
    return new EquabotError("DEADLINE_EXCEEDED", `the broker at ${target} granted no lease within ${timeoutMs} ms`);
  }

  async #keep(): Promise<void> {
    const pace = new Pace();
    let streams = true;
    let stopgap = false;
    while (!this.#closed) {
      const streaming: boolean = streams && !stopgap;
      stopgap = false;
      let failure: EquabotError | undefined;
      try {
        await (streaming ? this.#stream(pace) : this.#renewals(pace, !streams));
      } catch (error) {
        if (this.#closed) return;
        if (!(error instanceof EquabotError)) throw error;
        if (streaming && error.reason === "UNIMPLEMENTED") {
          streams = false;
          continue;
        }
        // Silence, or an answer that no broker gives: something on the way does not pass a stream now.
        stopgap = streaming && ["DEADLINE_EXCEEDED", "UNEXPECTED"].includes(error.reason);
        failure = error;
        this.#failed(error);
      }
      const pause = pace.pauseMs(failure);
      if (pause > 0) await this.#pause(pause);
    }
  }

  /** One stream. Returns when another should be opened. */
  async #stream(pace: Pace): Promise<void> {
    // The stream before stays open until the next one opens.
    for (const stream of this.#streams.slice(0, -1)) stream.cancel();
    const stream = this.#channel.stream(requestAfter(this.#request, this.#last));
    this.#streams = [...this.#streams.slice(-1), stream];
    let held: Held | undefined;
    try {
      for (;;) {
        const until = held?.due ?? steady() + this.#timeoutMs / 2;
        const target = this.#channel.target;
        const event = await stream.read({ timeoutMs: until - steady(), background: true, target });
        this.#ending.read(event);
        if (event === undefined || this.#closed) return;
        if (event.kind === "REVOKED") {
          if (!SERVED_ON.includes(event.reason)) this.#drop(event.reason);
          return;
        }
        const ending = event.kind === "EXPIRING";
        if (event.lease !== undefined) held = this.#hold(event.lease, { before: held, renewals: !ending });
        // The next stream opens while this one lives. A lease that begins near its end is used to its end. Otherwise
        // streams would follow each other as fast as they open.
        if (ending && held !== undefined && settled(held)) return;
      }
    } finally {
      if (held !== undefined && settled(held)) pace.settled();
    }
  }

  /** One lease without a stream. If it is not `lasting`, the next round tries a stream again. */
  async #renewals(pace: Pace, lasting: boolean): Promise<void> {
    const request = convert.acquireRequest(requestAfter(this.#request, this.#last));
    const granted = convert.lease(await this.#channel.ask(Service.method.acquireLease, request, this.#timeoutMs));
    this.#unstreamed = granted.id;
    let held = this.#hold(granted, { before: undefined, renewals: false });
    try {
      while (!this.#closed) {
        await this.#pause((held.until - steady()) * (0.6 + 0.1 * Math.random()));
        if (!lasting || !held.lease.renewable || steady() >= held.until || this.#closed) return;
        try {
          const ask = convert.renewRequest(held.lease.id);
          const renewed = convert.lease(await this.#channel.ask(Service.method.renewLease, ask, this.#timeoutMs));
          held = this.#hold(renewed, { before: held, renewals: false });
        } catch (error) {
          if (!(error instanceof EquabotError)) throw error;
          if (["LEASE_NOT_FOUND", "LEASE_EXPIRED"].includes(error.reason)) {
            this.#drop(error.reason === "LEASE_NOT_FOUND" ? "revoked" : "expired");
            return;
          }
          this.#failed(error);
        }
      }
    } finally {
      if (settled(held)) pace.settled();
    }
  }

  /** Waits, or less if a caller needs a lease. It does not keep the process alive. */
  async #pause(ms: number): Promise<void> {
    const needed = this.#needed.wait(ms, { background: true });
    await new Signal().wait(Math.min(ms, SHORTEST_PAUSE_MS), { background: true });
    if (!this.#closed) await needed;
  }

  /** The broker's own two instants are compared with each other, never with the clock here. */
  #hold(granted: Lease, options: { before: Held | undefined; renewals: boolean }): Held {
    const now = steady();
    const { before } = options;
    const last = this.#last;
    const lease = goingOnFrom(granted, last);
    const since = before?.lease.id === lease.id ? before.since : now;
    const until = since + (lease.expiresAt.getTime() - lease.issuedAt.getTime());
    const held = { lease, since, until, due: options.renewals ? now + (until - now) * OVERDUE : until };
    if (this.#closed) return held;
    this.#held = held;
    this.#last = lease;
    this.#error = undefined;
    this.#news.notify();
    this.#ending.held(lease, last);
    if (last !== undefined && !sameMaterial(lease, last)) safely(() => this.#hooks.onRotate?.(lease));
    return held;
  }

  #drop(reason: string): void {
    this.#held = undefined;
    this.#ending.ended(reason);
  }

  #failed(error: EquabotError): void {
    this.#error = error;
    this.#failures += 1;
    this.#news.notify();
    this.#ending.failed(error, this.#last);
  }
}

function settled(held: Held): boolean {
  return steady() - held.since >= Math.min(SETTLED_MS, (held.until - held.since) / 2);
}

/** Runs the application's code, whose failure does not end the loop. Node reports it as a warning. */
function safely(call: () => void): void {
  try {
    call();
  } catch (error) {
    process.emitWarning(error instanceof Error ? error : String(error));
  }
}
