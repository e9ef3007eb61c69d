/**
 * Whose a Unix socket is. What answers on it gets the caller's requests, and the caller uses the keys that it returns.
 *
 * A caller trusts root, itself and the user in `EQUABOT_BROKER_UID`. It trusts another user where one of those has given
 * that user a directory on the way to the socket, and no one else can write to the directory above it. Each directory on
 * the way belongs to a trusted user, and no one else can write to it unless it is sticky or a container's volume, in
 * which only a trusted user's socket is accepted (ADR 23).
 */

import { existsSync, lstatSync, readFileSync, realpathSync, statSync, type Stats } from "node:fs";
import { dirname } from "node:path";
import type { Environ } from "./address.js";
import { unavailable } from "./convert.js";
import { EquabotError } from "./errors.js";
import { Mounts, Users } from "./system.js";

const VARIABLE = "EQUABOT_BROKER_UID";
const ROOT = 0;
const MARKS = ["/.dockerenv", "/run/.containerenv", "/dev/termination-log"];
const MOUNTED = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
const STICKY = 0o1000;
const GROUP_WRITES = 0o020;
const OTHERS_WRITE = 0o002;
const EVERYONE = 0o007;
const ALL_IDS = "0 0 4294967295";

/** The user whom the environment names as the broker's. Throws TypeError for what is not a user's number. */
export function namedUser(environ: Environ): number | undefined {
  const named = environ[VARIABLE] ?? "";
  if (named !== "" && !/^[0-9]{1,10}$/.test(named)) {
    throw new TypeError(`${VARIABLE}: expected the number of the broker's user, such as 65532`);
  }
  return named === "" ? undefined : Number(named);
}

/** The check of one socket. It is cheap while the socket is the same. */
export class Ownership {
  readonly #socket: string;
  readonly #named: number | undefined;
  #checked = "";

  constructor(socket: string, named: number | undefined) {
    this.#socket = socket;
    this.#named = named;
  }

  /** Throws BROKER_NOT_TRUSTED, and BROKER_UNAVAILABLE for a socket that is not there or not ready. */
  check(): void {
    let found: Stats;
    try {
      found = statSync(this.#socket);
    } catch (error) {
      throw unavailable(`unix:${this.#socket}`, (error as NodeJS.ErrnoException).code ?? String(error));
    }
    const seen = `${found.dev} ${found.ino} ${found.ctimeMs}`;
    if (seen === this.#checked) return;
    this.#examine(found);
    this.#checked = seen;
  }

  #examine(found: Stats): void {
    const me = process.geteuid?.();
    if (me === undefined) return; // a system without users has no owners
    const known = new Set([ROOT, me, ...(this.#named === undefined ? [] : [this.#named])]);
    const trusted = new Set(known);
    const system = { mounts: new Mounts(), users: new Users() };
    for (const link of links(this.#socket)) {
      const owner = lstatSync(link).uid;
      if (!this.#walk(dirname(link), new Set(trusted), system) && !trusted.has(owner)) {
        throw this.#refusal(link, `is a link of user ${owner}, who can lead it elsewhere`);
      }
    }
    const closed = this.#walk(dirname(realpathSync(this.#socket)), trusted, system);
    if (this.#named !== undefined && found.uid !== this.#named) {
      throw this.#refusal(this.#socket, `belongs to user ${found.uid}, and ${VARIABLE} names ${this.#named}`);
    }
    if (!trusted.has(found.uid) && !closed) {
      throw this.#refusal(this.#socket, `belongs to user ${found.uid}, and every user can put one there`);
    }
    if (!known.has(found.uid) && found.mode & EVERYONE) {
      throw new EquabotError(
        "BROKER_UNAVAILABLE",
        `${this.#socket} belongs to user ${found.uid} and is open to every user. It is not a broker's, or the broker is ` +
          "still starting: try again, and check its owner",
      );
    }
  }

  /** Whether only trusted users can make something in the directory. Users who are vouched for on the way join them. */
  #walk(directory: string, trusted: Set<number>, system: { mounts: Mounts; users: Users }): boolean {
    let closed = true;
    const unmapped = unmappedUser();
    for (const step of steps(realpathSync(directory))) {
      let found: Stats;
      try {
        found = statSync(step);
      } catch {
        return closed;
      }
      if (!trusted.has(found.uid) && found.uid !== unmapped) {
        if (!closed) throw this.#refusal(step, `belongs to user ${found.uid}, to whom neither root nor this user gave it`);
        trusted.add(found.uid);
      }
      closed = !open(step, found, system);
      if (!closed && !(found.mode & STICKY) && !isVolume(step, found, system.mounts)) {
        const mode = (found.mode & 0o7777).toString(8).padStart(4, "0");
        throw this.#refusal(step, `has mode ${mode}, with which other users can put a socket of theirs in its place`);
      }
    }
    return closed;
  }

  #refusal(path: string, why: string): EquabotError {
    return new EquabotError(
      "BROKER_NOT_TRUSTED",
      `${this.#socket} may be another user's and not the broker's: ${path} ${why}. Give it to root or to the broker's ` +
        `user and close it to others (chmod o-w), or name the broker's user in ${VARIABLE}`,
    );
  }
}

/** The directories from the root to this one. */
function steps(path: string): string[] {
  return path === "/" ? ["/"] : [...steps(dirname(path)), path];
}

function links(path: string): string[] {
  return steps(path).filter((step) => lstatSync(step).isSymbolicLink());
}

/** Whether users other than its owner can make something in it. */
function open(directory: string, found: Stats, system: { mounts: Mounts; users: Users }): boolean {
  if (!(found.mode & (OTHERS_WRITE | GROUP_WRITES)) || system.mounts.readOnly(directory)) return false;
  return Boolean(found.mode & OTHERS_WRITE) || system.users.shared(found.gid, [ROOT, process.geteuid!()]);
}

/** Root mounted it into this container: the containers that it is mounted into decide who else can write there. */
function isVolume(directory: string, found: Stats, mounts: Mounts): boolean {
  const inside = MARKS.some((mark) => existsSync(mark)) || MOUNTED.some((file) => mounts.at(file));
  return inside && found.uid === ROOT && mounts.at(directory);
}

/** The user id that a user namespace shows for every user outside of it. */
function unmappedUser(): number | undefined {
  try {
    const mapped = readFileSync("/proc/self/uid_map", "utf8").trim().split(/\s+/).join(" ");
    return mapped === ALL_IDS ? undefined : Number(readFileSync("/proc/sys/kernel/overflowuid", "utf8"));
  } catch {
    return undefined;
  }
}
