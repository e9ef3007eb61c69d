// A secret appears in none of the ways in which JavaScript prints values.
import assert from "node:assert/strict";
import { Console } from "node:console";
import { Writable } from "node:stream";
import { before, test } from "node:test";
import { format, inspect } from "node:util";
import { serialize } from "node:v8";
import { EquabotError, Secret } from "@equabot/client";
import { broker, KEY, reset } from "./surroundings.mjs";

const values = {};

before(async () => {
  await reset();
  const credential = broker().credential("anthropic");
  const lease = await credential.lease();
  Object.assign(values, { credential, lease, secret: lease.secret, headers: lease.headers, env: lease.env });
  values.wrapped = { deep: { er: [lease, new Map([["lease", lease]])] } };
  values.error = new Error("failed", { cause: lease });
  values.refusal = Object.assign(new EquabotError("UNEXPECTED", "failed"), { lease });
  values.promise = credential.headers();
  await values.promise;
});

function logged(value) {
  let text = "";
  const stream = new Writable({ write: (chunk, _, done) => ((text += chunk), done()) });
  const output = new Console({ stdout: stream, stderr: stream });
  output.log(value);
  output.log("%s %o %O %j", value, value, value, value);
  output.dir(value, { showHidden: true, depth: null });
  if (value !== values.headers && value !== values.env) output.table([value]); // it looks up each name
  output.error(value);
  return text;
}

const CHANNELS = {
  "console": logged,
  "format": (value) => format("%s", value) + format(value),
  "inspect": (value) => inspect(value, { showHidden: true, depth: null, getters: true, showProxy: true }),
  "inspect without custom": (value) => inspect(value, { customInspect: false, showHidden: true, depth: null, showProxy: true }),
  "JSON": (value) => JSON.stringify(value) ?? "",
  "template": (value) => `${typeof value === "object" && Object.getPrototypeOf(value) === null ? String(value) : value}`,
  "concatenation": (value) => "" + value,
  "structuredClone": (value) => inspect(structuredClone(value), { depth: null }),
  "serialize": (value) => serialize(value).toString("latin1"),
  "assertion": (value) => {
    try {
      assert.deepEqual(value, { other: 1 });
    } catch (error) {
      return inspect(error, { depth: null }) + error.stack;
    }
  },
  "stack of a cause": (value) => inspect(new Error("outer", { cause: value }), { depth: null }),
};

for (const [name, shown] of Object.entries(CHANNELS)) {
  test(name, () => {
    for (const [what, value] of Object.entries(values)) {
      let text;
      try {
        text = shown(value);
      } catch (refused) {
        text = inspect(refused, { depth: null }); // what cannot be cloned is refused
      }
      assert.ok(!String(text).includes(KEY), `${what} is shown`);
    }
  });
}

test("what is shown says that something is hidden", () => {
  assert.equal(inspect(values.secret), "Secret(hidden)");
  assert.equal(`${values.secret}`, "Secret(hidden)");
  assert.match(inspect(values.headers), /^SecretMap\(.*x-api-key.*\)$/);
  assert.equal(JSON.parse(JSON.stringify(values.headers))["x-api-key"], "Secret(hidden)");
  assert.ok(JSON.parse(JSON.stringify(values.lease)).id);
});

test("a secret compares, and cannot be changed", () => {
  assert.ok(values.secret.equals(new Secret(KEY)));
  assert.ok(!values.secret.equals(new Secret("other")));
  assert.throws(() => {
    values.headers["x-api-key"] = "mine";
  }, TypeError);
  assert.throws(() => {
    values.lease.secret = new Secret("mine");
  }, TypeError);
  assert.equal(values.headers["toString"] instanceof Function, true);
  assert.equal("toJSON" in values.headers, false);
});
