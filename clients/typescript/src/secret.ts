/** Secrets that do not show themselves. */

import { timingSafeEqual } from "node:crypto";
import { inspect } from "node:util";

const HIDDEN = "Secret(hidden)";

/**
 * Text that `console.log`, `util.inspect`, `JSON.stringify`, string templates, `structuredClone` and assertion
 * messages do not show. `reveal()` returns it.
 */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
    Object.freeze(this);
  }

  /** The text itself. Pass it on at once, and do not log it. */
  reveal(): string {
    return this.#text;
  }

  /** Whether both hold the same text, in constant time. */
  equals(other: Secret): boolean {
    const [a, b] = [Buffer.from(this.#text), Buffer.from(other.#text)];
    return a.length === b.length && timingSafeEqual(a, b);
  }

  toString(): string {
    return HIDDEN;
  }

  toJSON(): string {
    return HIDDEN;
  }

  [Symbol.toPrimitive](): string {
    return HIDDEN;
  }

  get [Symbol.toStringTag](): string {
    return "Secret";
  }

  [inspect.custom](): string {
    return HIDDEN;
  }
}

/**
 * A read-only record that shows its names and hides its values. A lookup, a spread (`{...headers}`), `Object.entries`
 * and `new Headers(headers)` return the values, and so does `console.table`, which looks them up. It cannot be cloned or
 * sent to another thread.
 */
export type SecretMap = Readonly<Record<string, string>>;

/** Makes a SecretMap. `inspect` and `structuredClone` look behind the proxy, where there is nothing. */
export function secretMap(texts: Readonly<Record<string, string>>): SecretMap {
  const held = new Map(Object.entries(texts));
  const hidden = () => `SecretMap(${[...held.keys()].join(", ")})`;
  const shown = new Map<string | symbol, unknown>([
    ["toJSON", () => Object.fromEntries([...held.keys()].map((name) => [name, HIDDEN]))],
    ["toString", hidden],
    [Symbol.toPrimitive, hidden],
    [Symbol.toStringTag, "SecretMap"],
    [inspect.custom, hidden],
  ]);
  const target = Object.create(null, { [inspect.custom]: { value: hidden, configurable: true } }) as Record<string, string>;
  return new Proxy(target, {
    get: (_, name) => (typeof name === "string" && held.has(name) ? held.get(name) : shown.get(name)),
    has: (_, name) => typeof name === "string" && held.has(name),
    ownKeys: () => [...held.keys()],
    getOwnPropertyDescriptor: (_, name) =>
      typeof name === "string" && held.has(name)
        ? { value: held.get(name), enumerable: true, configurable: true, writable: false }
        : undefined,
    set: () => false,
    defineProperty: () => false,
    deleteProperty: () => false,
    preventExtensions: () => false,
  });
}

/** Whether two maps hold the same. */
export function sameMap(one: SecretMap, other: SecretMap): boolean {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}
