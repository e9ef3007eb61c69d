/**
 * Reports once that what a process was given at its start is over. A raw lease ends when the broker takes it away. A
 * token also ends with its lease, unless the next lease goes on with it.
 */

import type { EquabotError } from "./errors.js";
import type { Lease, LeaseEvent } from "./lease.js";

export class Ending {
  readonly #report: (reason: string) => void;
  #reported = false;
  #away = false;

  constructor(report: (reason: string) => void) {
    this.#report = report;
  }

  /** A lease is in hand, after another. */
  held(lease: Lease, before: Lease | undefined): void {
    if (before?.delivery === "brokered" && !lease.secret.equals(before.secret)) {
      this.ended(this.#away ? "BROKER_UNAVAILABLE" : "expired");
    }
    this.#reported = false;
    this.#away = false;
  }

  /** There is no next lease yet, or for good. */
  failed(error: EquabotError, before: Lease | undefined): void {
    if (error.reason === "BROKER_UNAVAILABLE") this.#away = true;
    if (before !== undefined && !error.retryable) this.ended(error.reason);
  }

  /** An event of the stream. A stream that ends without one was cut off, as when the broker is killed. */
  read(event: LeaseEvent | undefined): void {
    if (event === undefined) this.#away = true;
  }

  /** What is in hand is over. */
  ended(reason: string): void {
    if (this.#reported) return;
    this.#reported = true;
    this.#report(reason);
  }
}
