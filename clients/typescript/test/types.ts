// A program of a user, in strict mode. A test compiles it as an ES module and as CommonJS.
import { connect, createFetch, EquabotError, type Credential, type Lease, type Reason, type SecretMap } from "@equabot/client";

export async function use(): Promise<string> {
  await using broker = connect({ timeoutMs: 1000 });
  const credential: Credential = broker.credential("anthropic", { session: "chat-7", onRotate: (lease: Lease) => void lease.id });
  const headers: SecretMap = await credential.headers();
  const request: Record<string, string> = { ...headers, "content-type": "application/json" };
  const fetched: typeof globalThis.fetch = createFetch(credential, { refusals: "throw" });
  try {
    const response: Response = await fetched("https://api.anthropic.com", { headers: request });
    return await response.text();
  } catch (error) {
    if (error instanceof EquabotError && error.reason === "NO_USABLE_PROFILE") return Object.keys(error.candidates).join();
    const reason: Reason = "OF_A_NEWER_BROKER";
    return reason;
  }
}

// @ts-expect-error headers are read-only
export const change = (headers: SecretMap) => (headers["x-api-key"] = "mine");
// @ts-expect-error there is no such delivery
export const wrong = () => connect().credential("anthropic", { delivery: "post" });
