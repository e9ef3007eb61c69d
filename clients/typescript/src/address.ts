/** Where the broker is. */

import { accessSync, constants, existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve as absolute } from "node:path";

const SCHEME = "unix:";
const LONGEST = 107; // sun_path holds 108 bytes, the last of which is zero
const LOOPBACK = ["127.0.0.1:", "[::1]:", "localhost:"];
const TCP = /^(?:dns:\/\/\/)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):[0-9]{1,5}$/;

export type Environ = Readonly<Record<string, string | undefined>>;

/**
 * A gRPC target: the given address, else `EQUABOT_BROKER_ADDRESS`, else the agent's socket in the run directory.
 * `identified`: a token or a certificate identifies the caller, so `host:port` is allowed. Throws TypeError for what is
 * not an address.
 */
export function resolveAddress(
  address: string | undefined,
  options: { agent: string; environ: Environ; identified: boolean },
): string {
  const given = address || options.environ["EQUABOT_BROKER_ADDRESS"];
  return given
    ? target(given.trim(), options.identified)
    : target(defaultSocket(options.agent, options.environ), false);
}

export function isSocket(target: string): boolean {
  return target.startsWith(SCHEME);
}

export function socketPath(target: string): string {
  return target.slice(SCHEME.length);
}

/** The path with `~` as the home directory. */
export function expanded(path: string): string {
  return absolute(path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path);
}

function target(text: string, identified: boolean): string {
  if (LOOPBACK.some((start) => text.startsWith(start)) || (identified && TCP.test(text))) return text;
  if (TCP.test(text)) {
    throw new TypeError(
      `broker address "${text}": a broker over TCP must know who calls. Give tokenFile (EQUABOT_BROKER_TOKEN_FILE), or ` +
        "clientCertificate and clientKey. Without encryption only a loopback address is allowed",
    );
  }
  if (!text.startsWith(SCHEME) && !text.includes("/")) {
    throw new TypeError(
      `broker address "${text}": expected unix:/path/broker.sock, a path, a loopback host:port or, with a token or a ` +
        "certificate, any host:port",
    );
  }
  const path = expanded(text.startsWith(SCHEME) ? text.slice(SCHEME.length).replace(/^\/+/, "/") : text);
  if (Buffer.byteLength(path) > LONGEST) {
    throw new TypeError(`broker address "${text}": the path of a socket has at most ${LONGEST} bytes`);
  }
  return SCHEME + path;
}

/** The first socket that exists. If none exists, the one that a broker started now would make. */
function defaultSocket(agent: string, environ: Environ): string {
  if (agent.includes("/") || ["", ".", ".."].includes(agent)) throw new TypeError(`agent "${agent}": not a name`);
  const dirs = runDirs(environ);
  const socket = (dir: string) => join(dir, agent, "broker.sock");
  const chosen =
    dirs.find((dir) => existsSync(socket(dir))) ?? dirs.find((dir) => existsSync(dir) || writable(dirname(dir)));
  return socket(chosen ?? dirs.at(-1)!);
}

function runDirs(environ: Environ): string[] {
  const chosen = environ["EQUABOT_RUN_DIR"];
  if (chosen) return [chosen];
  const runtime = environ["XDG_RUNTIME_DIR"];
  const home = expanded(environ["EQUABOT_HOME"] || "~/.equabot");
  return ["/run/equabot", ...(runtime ? [join(runtime, "equabot")] : []), join(home, "run")];
}

function writable(dir: string): boolean {
  try {
    accessSync(dir, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
