// What the tests of the client have around them: a real broker, and a fake vendor, which the test runner controls.
import { after } from "node:test";
import { connect } from "@equabot/client";

export const { KEY, OTHER_KEY, OPENAI_KEY } = process.env;
export const TIMEOUT_MS = 60_000;

/** Calls an action of tests/languages/test_typescript.py. */
export async function control(action, given = {}) {
  const answer = await fetch(`${process.env.CONTROL}/${action}`, { method: "POST", body: JSON.stringify(given) });
  const result = await answer.json();
  if (!answer.ok) throw new Error(`${action}: ${result}`);
  return result;
}

const open = [];
after(() => Promise.all(open.map((broker) => broker.close())));

/** A connection that is closed after the file's tests. */
export function broker(options = {}) {
  const connected = connect({ timeoutMs: TIMEOUT_MS, ...options });
  open.push(connected);
  return connected;
}

/** Waits for a condition. */
export async function eventually(happened) {
  for (const deadline = Date.now() + TIMEOUT_MS; !(await happened()); ) {
    if (Date.now() > deadline) throw new Error(`it does not happen: ${happened}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Puts the world back: a running broker with the first key, and a vendor that accepts every key. */
export async function reset() {
  await control("rotate", { key: KEY });
  await control("accept", { keys: [KEY, OTHER_KEY, OPENAI_KEY] });
  const one = connect({ timeoutMs: TIMEOUT_MS });
  await eventually(async () => (await one.acquire("anthropic", { ttlMs: 1000 })).secret.reveal() === KEY);
  await one.close();
}
