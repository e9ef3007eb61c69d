/** Pauses between rounds: none at first, then doubling, with jitter, until a round has settled. */

import type { EquabotError } from "./errors.js";

const SHORTEST_MS = 50;
const LONGEST_MS = 5000;
const LONGEST_AWAY_MS = 400;
const LONGEST_ASKED_MS = 60_000;

export class Pace {
  readonly #random: () => number;
  #rounds = 0;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  settled(): void {
    this.#rounds = 0;
  }

  /** Milliseconds to wait after a round that ended well, or by an error. */
  pauseMs(error: EquabotError | undefined): number {
    const count = this.#rounds;
    this.#rounds = Math.min(count + 1, 16);
    const away = error === undefined || error.reason === "BROKER_UNAVAILABLE";
    if (away && count === 0) return 0;
    const soon = away || ["SHUTTING_DOWN", "SOURCE_NOT_SYNCED"].includes(error.reason);
    const jitter = 0.5 + this.#random() / 2;
    const pause = Math.min(soon ? LONGEST_AWAY_MS : LONGEST_MS, SHORTEST_MS * 2 ** count) * jitter;
    return Math.max(pause, Math.min(error?.retryAfterMs ?? 0, LONGEST_ASKED_MS));
  }
}
