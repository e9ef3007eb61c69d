// The vendors' own SDKs with the credential's fetch, against a fake vendor.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { beforeEach, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { connect, createFetch, EquabotError } from "@equabot/client";
import { broker, control, eventually, KEY, OPENAI_KEY, OTHER_KEY, reset } from "./surroundings.mjs";

const hello = [{ role: "user", content: "hello" }];
const ask = (claude) => claude.messages.create({ model: "claude-sonnet-5-5", max_tokens: 9, messages: hello });

async function anthropic(credential, options = {}) {
  return new Anthropic({ apiKey: "equabot", baseURL: await credential.baseUrl(), fetch: credential.fetch, ...options });
}

beforeEach(reset);

test("Anthropic: each request carries the current key, also after a rotation", async () => {
  const credential = broker().credential("anthropic");
  const claude = await anthropic(credential);
  assert.match(JSON.stringify(await ask(claude)), /hello/i);
  const before = await credential.lease();
  await control("rotate");
  await credential.waitForChange({ since: before });
  await ask(claude);
  assert.deepEqual((await control("received")).map(([, key]) => key), [KEY, OTHER_KEY]);
});

test("OpenAI: each request carries the key, and a stream works", async () => {
  const credential = broker().credential("openai");
  const gpt = new OpenAI({ apiKey: "equabot", baseURL: await credential.baseUrl(), fetch: credential.fetch });
  const answer = await gpt.chat.completions.create({ model: "gpt-5", messages: hello });
  assert.match(JSON.stringify(answer), /hello/i);
  let streamed = "";
  for await (const part of await gpt.chat.completions.create({ model: "gpt-5", messages: hello, stream: true })) {
    streamed += part.choices[0]?.delta?.content ?? "";
  }
  assert.match(streamed, /hello/i);
  assert.deepEqual(await control("received"), [
    ["/v1/chat/completions", OPENAI_KEY],
    ["/v1/chat/completions", OPENAI_KEY],
  ]);
});

test("a key that the vendor refuses is reported, and the SDK gets the vendor's answer", async () => {
  await control("accept", { keys: [OTHER_KEY] });
  const credential = broker().credential("anthropic");
  const claude = await anthropic(credential, { maxRetries: 0 });
  await assert.rejects(ask(claude), Anthropic.AuthenticationError);
  await eventually(async () => (await broker().listProfiles("anthropic"))[0].state === "rejected");
  await control("rotate");
  await eventually(() => ask(claude).then(() => true, () => false));
  assert.equal((await control("received")).at(-1)[1], OTHER_KEY);
});

test("the broker's refusals are the SDK's own errors with the broker's text, and are not retried", async () => {
  const calls = [];
  const counted = (credential) => (...given) => (calls.push(1), credential.fetch(...given));
  const narrow = broker({ agent: "narrow" }).credential("anthropic");
  const claude = new Anthropic({ apiKey: "equabot", baseURL: "http://127.0.0.1:1", fetch: counted(narrow) });
  await assert.rejects(ask(claude), (error) => {
    assert.ok(error instanceof Anthropic.PermissionDeniedError, String(error));
    assert.match(error.message, /narrow/);
    assert.equal(error.headers.get("x-equabot-reason"), "POLICY_DENIED");
    return true;
  });
  const unknown = broker().credential("antropic");
  const gpt = new OpenAI({ apiKey: "equabot", baseURL: "http://127.0.0.1:1", fetch: counted(unknown) });
  await assert.rejects(gpt.chat.completions.create({ model: "gpt-5", messages: hello }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError, String(error));
    assert.equal(error.code, "provider_unknown");
    return true;
  });
  assert.equal(calls.length, 2);
});

test("without a broker an SDK says so, once", async () => {
  const calls = [];
  const credential = connect({ address: "/tmp/equabot-nowhere/broker.sock", timeoutMs: 100 }).credential("anthropic");
  const fetch = (...given) => (calls.push(1), credential.fetch(...given));
  const claude = new Anthropic({ apiKey: "equabot", fetch });
  await assert.rejects(ask(claude), (error) => {
    assert.ok(error instanceof Anthropic.InternalServerError, String(error));
    assert.match(error.message, /no broker answers at .*equabot serve/);
    return true;
  });
  assert.equal(calls.length, 1);
  const thrown = createFetch(credential, { refusals: "throw" });
  await assert.rejects(thrown("https://api.anthropic.com/"), (error) => error instanceof EquabotError);
});

test("the key goes to the provider alone, and follows no redirect elsewhere", async () => {
  const seen = [];
  const elsewhere = createServer((request, response) => {
    seen.push(request.headers);
    response.end("elsewhere");
  });
  await new Promise((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
  const other = `http://127.0.0.1:${elsewhere.address().port}/`;
  try {
    const credential = broker().credential("anthropic");
    assert.equal(await (await credential.fetch(other)).text(), "elsewhere");
    const base = await credential.baseUrl();
    await control("redirect", { to: other });
    const followed = await credential.fetch(`${base}/v1/messages`, { method: "POST", body: "{}" });
    assert.equal(await followed.text(), "elsewhere");
    assert.ok(!JSON.stringify(seen).includes(KEY));
    const [own] = await control("received");
    assert.equal(own[1], KEY);
    const trusting = createFetch(credential, { origins: [other] });
    await trusting(other);
    assert.equal(seen.at(-1)["x-api-key"], KEY);
  } finally {
    elsewhere.close();
  }
});

test("a caller who aborts does not wait for the broker", async () => {
  const credential = connect({ address: "/tmp/equabot-nowhere/broker.sock", timeoutMs: 60_000 }).credential("anthropic");
  const aborting = new AbortController();
  const asked = credential.fetch("https://api.anthropic.com/", { signal: aborting.signal });
  aborting.abort();
  await assert.rejects(asked, { name: "AbortError" });
  await credential.close();
});
