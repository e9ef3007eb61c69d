// `import` and `require` give the same client, and an error of either is an `instanceof` of both.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import * as imported from "@equabot/client";

const required = createRequire(import.meta.url)("@equabot/client");

test("both entries export the same", () => {
  const names = ["Broker", "Credential", "EquabotError", "Secret", "connect", "createFetch"];
  for (const name of names) {
    assert.equal(typeof imported[name], "function", name);
    assert.equal(imported[name], required[name], name);
  }
  assert.deepEqual(Object.keys(required).sort(), names);
});

test("the reason of a newer broker is kept, and is retryable if the broker named a wait", () => {
  const plain = new imported.EquabotError("OF_THE_FUTURE", "no");
  assert.deepEqual([plain.reason, plain.retryable], ["OF_THE_FUTURE", false]);
  const waits = new imported.EquabotError("OF_THE_FUTURE", "no", { retryAfterMs: 5 });
  assert.deepEqual([waits.retryable, waits.retryAfterMs], [true, 5]);
  assert.equal(new imported.EquabotError("constructor", "no").retryable, false);
});
