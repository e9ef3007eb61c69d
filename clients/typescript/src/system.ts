/** What Node does not know of the system: mounts, and who is in a group. */

import { readFileSync } from "node:fs";

/** The mounts that this process sees. Without /proc there are none. */
export class Mounts {
  readonly #readOnly = new Map<string, boolean>();

  constructor() {
    for (const line of lines("/proc/self/mountinfo")) {
      const [, , , , point, options] = line.split(" ");
      if (point === undefined || options === undefined) continue;
      const superOptions = line.split(" - ")[1]?.split(" ")[2] ?? "";
      this.#readOnly.set(unescaped(point), [options, superOptions].some((some) => some.split(",").includes("ro")));
    }
  }

  /** Whether something is mounted at exactly this path. */
  at(path: string): boolean {
    return this.#readOnly.has(path);
  }

  /** Whether the file system of the path is mounted read-only. */
  readOnly(path: string): boolean {
    for (let step = path; ; step = step.slice(0, step.lastIndexOf("/"))) {
      const found = this.#readOnly.get(step || "/");
      if (found !== undefined || step === "") return found ?? false;
    }
  }
}

/** The user database of this machine, as far as it is in files. */
export class Users {
  readonly #users = lines("/etc/passwd").map((line) => line.split(":"));
  readonly #groups = lines("/etc/group").map((line) => line.split(":"));

  /** Whether the group has a member other than these users. */
  shared(gid: number, users: readonly number[]): boolean {
    const members = new Set(
      this.#groups.filter((group) => Number(group[2]) === gid).flatMap((group) => (group[3] ?? "").split(",")),
    );
    for (const user of this.#users) if (Number(user[3]) === gid && user[0]) members.add(user[0]);
    for (const user of this.#users) if (users.includes(Number(user[2]))) members.delete(user[0]!);
    members.delete("");
    return members.size > 0;
  }
}

function lines(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split("\n").filter(Boolean);
  } catch {
    return [];
  }
}

/** Octal escapes of a mount's path: a space is \040. */
function unescaped(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
