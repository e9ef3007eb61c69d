/** `google.rpc.Status` in the trailer of a failed call: what the client reads of it, and no more. */

import { BinaryReader, type WireType } from "@bufbuild/protobuf/wire";

export const TRAILER = "grpc-status-details-bin";

export interface ErrorInfo {
  reason: string;
  metadata: Record<string, string>;
  retryAfterMs: number | undefined;
}

type Field = (reader: BinaryReader) => void;

/** The reason, metadata and wait in a trailer. Undefined if it has none of this domain, or cannot be read. */
export function errorInfo(trailer: Uint8Array, domain: string): ErrorInfo | undefined {
  let found: ErrorInfo | undefined;
  let retryAfterMs: number | undefined;
  try {
    fields(trailer, {
      3: (status) => {
        let type = "";
        let value: Uint8Array = new Uint8Array();
        fields(status.bytes(), { 1: (any) => (type = any.string()), 2: (any) => (value = any.bytes()) });
        if (type.endsWith("/google.rpc.ErrorInfo")) found = info(value, domain) ?? found;
        if (type.endsWith("/google.rpc.RetryInfo")) {
          fields(value, { 1: (retry) => (retryAfterMs = duration(retry.bytes())) });
        }
      },
    });
  } catch {
    return undefined;
  }
  return found && { ...found, retryAfterMs };
}

function info(bytes: Uint8Array, domain: string): ErrorInfo | undefined {
  const read = { reason: "", domain: "", metadata: {} as Record<string, string> };
  fields(bytes, {
    1: (reader) => (read.reason = reader.string()),
    2: (reader) => (read.domain = reader.string()),
    3: (reader) => {
      let [key, value] = ["", ""];
      fields(reader.bytes(), { 1: (entry) => (key = entry.string()), 2: (entry) => (value = entry.string()) });
      Object.defineProperty(read.metadata, key, { value, enumerable: true, configurable: true });
    },
  });
  const ours = read.domain === domain && read.reason !== "";
  return ours ? { reason: read.reason, metadata: read.metadata, retryAfterMs: undefined } : undefined;
}

function duration(bytes: Uint8Array): number {
  let ms = 0;
  fields(bytes, {
    1: (reader) => (ms += Number(reader.int64()) * 1000),
    2: (reader) => (ms += reader.int32() / 1e6),
  });
  return ms;
}

function fields(bytes: Uint8Array, known: Record<number, Field>): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, type]: [number, WireType] = reader.tag();
    const read = known[number];
    if (read) read(reader);
    else reader.skip(type, number);
  }
}
