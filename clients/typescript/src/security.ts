/** What a connection over TCP needs: whom to trust, and how to identify the caller. Files, because they are renewed. */

import { readFileSync, statSync } from "node:fs";
import { credentials, type ChannelCredentials } from "@grpc/grpc-js";
import { expanded, type Environ } from "./address.js";
import { EquabotError } from "./errors.js";

/** For a broker in another pod, whose address is `host:port`. What is left out comes from the environment. */
export interface Security {
  /** The authority that signed the broker's certificate (PEM): `EQUABOT_BROKER_CA_FILE`, else the usual authorities. */
  caFile?: string;
  /** A service account's token for the audience `equabot`, read again for every call: `EQUABOT_BROKER_TOKEN_FILE`. */
  tokenFile?: string;
  /** A certificate in place of a token (PEM): `EQUABOT_BROKER_CLIENT_CERTIFICATE`. */
  clientCertificate?: string;
  /** Its key: `EQUABOT_BROKER_CLIENT_KEY`. */
  clientKey?: string;
}

const VARIABLES: Readonly<Record<keyof Security, string>> = {
  caFile: "EQUABOT_BROKER_CA_FILE",
  tokenFile: "EQUABOT_BROKER_TOKEN_FILE",
  clientCertificate: "EQUABOT_BROKER_CLIENT_CERTIFICATE",
  clientKey: "EQUABOT_BROKER_CLIENT_KEY",
};
const LARGEST = 1 << 20;

export class Files {
  readonly #paths: Security = {};

  constructor(given: Security, environ: Environ) {
    for (const [name, variable] of Object.entries(VARIABLES) as [keyof Security, string][]) {
      const path = given[name] || environ[variable];
      if (path) this.#paths[name] = expanded(path);
    }
    if ((this.#paths.clientCertificate === undefined) !== (this.#paths.clientKey === undefined)) {
      throw new TypeError("clientCertificate and clientKey belong together: give both");
    }
  }

  /** Whether they identify the caller. */
  get identify(): boolean {
    return this.#paths.tokenFile !== undefined || this.#paths.clientCertificate !== undefined;
  }

  get any(): boolean {
    return this.identify || this.#paths.caFile !== undefined;
  }

  /** Changes when a file that a connection is made with was renewed. The token goes with each call. */
  stamp(): string {
    const { caFile, clientCertificate, clientKey } = this.#paths;
    return [caFile, clientCertificate, clientKey]
      .map((path) => {
        const found = path === undefined ? undefined : statSync(path, { bigint: true, throwIfNoEntry: false });
        return found ? `${found.ino},${found.mtimeNs},${found.size}` : "";
      })
      .join(" ");
  }

  /** TLS with what the files hold now. Throws FILE_UNREADABLE. */
  credentials(): ChannelCredentials {
    const { caFile, clientCertificate, clientKey } = this.#paths;
    return credentials.createSsl(
      caFile === undefined ? null : read(caFile, "CERTIFICATE-----"),
      clientKey === undefined ? null : read(clientKey, "PRIVATE KEY-----"),
      clientCertificate === undefined ? null : read(clientCertificate, "CERTIFICATE-----"),
    );
  }

  /** What identifies the maker of a call. Throws FILE_UNREADABLE. */
  authorization(): string | undefined {
    const path = this.#paths.tokenFile;
    if (path === undefined) return undefined;
    const token = read(path).toString("latin1").trim();
    if (!/^[\x21-\x7e]+$/.test(token)) {
      throw new EquabotError("FILE_UNREADABLE", `${path} holds no token: is it a projected service-account token?`);
    }
    return `Bearer ${token}`;
  }
}

function read(path: string, holding = ""): Buffer {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path).subarray(0, LARGEST);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    throw new EquabotError("FILE_UNREADABLE", `${path} cannot be read (${code}): is it mounted here?`);
  }
  if (!bytes.includes(holding)) {
    const what = holding.replace(/-+$/, "").toLowerCase();
    throw new EquabotError("FILE_UNREADABLE", `${path} is not in PEM form: it holds no ${what}`);
  }
  return bytes;
}
