/** The steady clock: it never jumps, and counts the time that the machine sleeps. */

import { uptime } from "node:os";

const LONGEST_TIMER = 2 ** 31 - 1;
const JUMP_MS = 1000;

const booted = uptime() * 1000 - performance.now();
let drift = Date.now() - performance.now();
let asleep = 0;

/** Milliseconds. `performance.now` stops while the machine sleeps. After a sleep the wall clock jumps. */
export function steady(): number {
  const now = performance.now();
  const seen = Date.now() - now;
  if (Math.abs(seen - drift) > JUMP_MS) {
    drift = seen;
    asleep = Math.max(0, uptime() * 1000 - now - booted);
  }
  return now + asleep;
}

/** Wakes those who wait. */
export class Signal {
  readonly #waiting = new Set<() => void>();

  notify(): void {
    for (const wake of this.#waiting) wake();
  }

  /**
   * Returns after a notification, or after so many milliseconds. Without `background` the process does not end before.
   */
  wait(ms: number, options: { background?: boolean } = {}): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, Math.min(Math.max(ms, 0), LONGEST_TIMER));
      if (options.background) timer.unref();
      this.#waiting.add(wake);
    });
  }
}

/** The result of the promise. Until then the process does not end, although the connection alone would let it. */
export async function awake<T>(promise: Promise<T>): Promise<T> {
  const alive = setInterval(() => undefined, 2 ** 30);
  try {
    return await promise;
  } finally {
    clearInterval(alive);
  }
}
