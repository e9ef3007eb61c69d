// A credential against a real broker: rotation, kill -9, suspension, refusals, and what happens without a broker.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { beforeEach, test } from "node:test";
import { promisify } from "node:util";
import { connect, EquabotError } from "@equabot/client";
import { broker, control, eventually, KEY, OPENAI_KEY, OTHER_KEY, reset } from "./surroundings.mjs";

const reason = (expected) => (error) => error instanceof EquabotError && error.reason === expected;

beforeEach(reset);

test("headers are those of the provider", async () => {
  const credential = broker().credential("anthropic");
  const headers = await credential.headers();
  assert.equal(headers["x-api-key"], KEY);
  assert.equal({ ...headers }["x-api-key"], KEY);
  assert.equal(new Headers(headers).get("x-api-key"), KEY);
  assert.equal((await credential.secret()).reveal(), KEY);
  assert.equal((await credential.env())["ANTHROPIC_API_KEY"], KEY);
  const lease = await credential.lease();
  assert.equal(lease.provider, "anthropic");
  assert.equal(lease.delivery, "raw");
  assert.ok(lease.expiresAt > lease.issuedAt);
});

test("a rotation arrives without another request", async () => {
  const rotated = [];
  const credential = broker().credential("anthropic", { onRotate: (lease) => rotated.push(lease.secret.reveal()) });
  const before = await credential.lease();
  await control("rotate");
  const changed = await credential.waitForChange({ since: before });
  assert.equal(changed.secret.reveal(), OTHER_KEY);
  assert.equal((await credential.headers())["x-api-key"], OTHER_KEY);
  assert.deepEqual(rotated, [OTHER_KEY]);
});

test("kill -9 of the broker: the credential serves, reconnects, and gets the next rotation", async () => {
  const credential = broker().credential("anthropic");
  const before = await credential.lease();
  await control("kill");
  assert.equal((await credential.headers())["x-api-key"], KEY);
  await control("rotate");
  await control("start");
  assert.equal((await credential.waitForChange({ since: before })).secret.reveal(), OTHER_KEY);
});

test("the broker starts after the agent", async () => {
  await control("kill");
  const waiting = broker().credential("anthropic").headers();
  await control("start");
  assert.equal((await waiting)["x-api-key"], KEY);
});

test("a suspended agent gets nothing until it is resumed", async () => {
  const ended = [];
  const credential = broker().credential("anthropic", { onEnd: (why) => ended.push(why) });
  await credential.lease();
  assert.equal(await control("suspend"), 0);
  await eventually(() => ended.length > 0);
  assert.deepEqual(ended, ["agent_suspended"]);
  await assert.rejects(credential.headers(), reason("AGENT_SUSPENDED"));
  assert.equal(await control("resume"), 0);
  await eventually(() => credential.headers().then(() => true, () => false));
});

test("a lease is acquired, renewed, listed as active and revoked", async () => {
  const one = broker();
  const lease = await one.acquire("anthropic:dotenv", { ttlMs: 60_000, session: "chat-7" });
  assert.equal(lease.profile, "anthropic:dotenv");
  const renewed = await one.renew(lease, { ttlMs: 120_000 });
  assert.equal(renewed.id, lease.id);
  assert.ok(renewed.expiresAt > lease.expiresAt);
  assert.equal(await one.revoke(lease), true);
  assert.equal(await one.revoke(lease), false);
  await assert.rejects(one.renew(lease), reason("LEASE_NOT_FOUND"));
  assert.equal(await one.withLease("anthropic", (held) => held.secret.reveal()), KEY);
});

test("a stream begins with the lease and ends with the iteration", async () => {
  for await (const event of broker().stream("anthropic")) {
    assert.equal(event.kind, "GRANTED");
    assert.equal(event.lease.secret.reveal(), KEY);
    break;
  }
});

test("profiles are listed without secrets, and a session is pinned", async () => {
  const one = broker();
  await one.pin("chat-7", "anthropic", { profile: "dotenv" });
  const [profile] = await one.listProfiles("anthropic", { session: "chat-7" });
  assert.deepEqual([profile.id, profile.state, profile.next, profile.pinned], ["anthropic:dotenv", "ok", true, true]);
  await one.unpin("chat-7", "anthropic");
  assert.equal((await one.listProfiles("anthropic", { session: "chat-7" }))[0].pinned, false);
});

test("each refusal has its reason", async () => {
  const one = broker();
  await assert.rejects(one.acquire("antropic"), reason("PROVIDER_UNKNOWN"));
  await assert.rejects(one.credential("antropic").headers(), reason("PROVIDER_UNKNOWN"));
  await assert.rejects(one.acquire("anthropic:nothing"), reason("PROFILE_NOT_FOUND"));
  await assert.rejects(one.acquire("anthropic", { ttlMs: -1 }), reason("INVALID_ARGUMENT"));
  await assert.rejects(broker({ agent: "narrow" }).acquire("anthropic"), reason("POLICY_DENIED"));
  await assert.rejects(one.acquire("groq"), (error) => reason("NO_USABLE_PROFILE")(error) && error.retryable);
  assert.equal((await broker({ agent: "narrow" }).credential("openai").secret()).reveal(), OPENAI_KEY);
});

test("without a broker: one error that says what to do, within the timeout", async () => {
  const nowhere = connect({ address: "/tmp/equabot-nowhere/broker.sock", timeoutMs: 200 });
  await assert.rejects(nowhere.credential("anthropic").headers(), (error) => {
    assert.ok(reason("BROKER_UNAVAILABLE")(error));
    assert.match(error.message, /no broker answers at unix:\/tmp\/equabot-nowhere\/broker\.sock: .*equabot serve/);
    return error.retryable;
  });
  await nowhere.close();
  assert.throws(() => connect("broker.example:443"), /must know who calls/);
  assert.throws(() => connect("nonsense"), /expected unix:/);
});

test("a closed credential and a closed broker say so", async () => {
  const one = connect();
  const credential = one.credential("anthropic");
  await credential.lease();
  await credential.close();
  await credential.close();
  await assert.rejects(credential.headers(), reason("CLOSED"));
  await one.close();
  await assert.rejects(one.acquire("anthropic"), reason("CLOSED"));
});

test("an open credential does not keep the process alive", async () => {
  const program = `
    const { connect } = require("@equabot/client");
    connect().credential("anthropic").headers().then((headers) => console.log(Object.keys(headers).join()));`;
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ["-e", program], { timeout: 60_000 });
  assert.match(stdout, /x-api-key/);
  assert.equal(stderr, "");
});
