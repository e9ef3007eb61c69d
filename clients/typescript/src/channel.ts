/**
 * The connection to a broker. It opens at the first call. The caller owns the retries: gRPC's own are off, and a
 * connection that failed is tried again within 100 ms. Only EquabotError is thrown here.
 */

import { fromBinary, toBinary, type DescMessage, type DescMethod, type MessageShape } from "@bufbuild/protobuf";
import { Client, credentials, Metadata, type ChannelCredentials, type ServiceError } from "@grpc/grpc-js";
import { isSocket, resolveAddress, socketPath, type Environ } from "./address.js";
import { awake } from "./clock.js";
import * as convert from "./convert.js";
import { EquabotError } from "./errors.js";
import { Broker as Service } from "./gen/equabot/broker/v1/broker_pb.js";
import type { LeaseEvent, LeaseRequest } from "./lease.js";
import { namedUser, Ownership } from "./ownership.js";
import type { Files } from "./security.js";
import { unreferenced } from "./unreferenced.js";

type Method<I extends DescMessage, O extends DescMessage> = DescMethod & { input: I; output: O };

const OPTIONS = {
  "grpc.enable_retries": 0,
  "grpc.enable_http_proxy": 0,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 100,
  "grpc.use_local_subchannel_pool": 1, // the backoff of another channel does not apply here
  "grpc.primary_user_agent": "equabot-client-typescript",
};

export interface Place {
  address: string | undefined;
  agent: string;
  environ: Environ;
  files: Files;
}

/** The events of one streamed lease. */
export class EventStream {
  readonly #events: AsyncIterator<LeaseEvent>;
  readonly #cancel: () => void;

  constructor(events: AsyncIterator<LeaseEvent>, cancel: () => void) {
    this.#events = events;
    this.#cancel = cancel;
  }

  /** The next event, undefined after the last. If it does not come in time, the stream ends: DEADLINE_EXCEEDED. */
  async read(options: { timeoutMs?: number; background?: boolean; target: string }): Promise<LeaseEvent | undefined> {
    const next = this.#events.next();
    next.catch(() => undefined); // a stream that was given up fails later
    const { timeoutMs } = options;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      if (timeoutMs === undefined) return;
      timer = setTimeout(
        () => {
          reject(new EquabotError("DEADLINE_EXCEEDED", `the broker at ${options.target} sent nothing for ${timeoutMs} ms`));
          this.cancel();
        },
        Math.min(Math.max(timeoutMs, 0), 2 ** 31 - 1),
      );
      if (options.background) timer.unref();
    });
    try {
      const step = await Promise.race([next, late]);
      return step.done ? undefined : step.value;
    } catch (raised) {
      if (raised instanceof EquabotError) throw raised;
      throw convert.error(raised as ServiceError, options.target);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the stream, and with it its lease. Idempotent. */
  cancel(): void {
    this.#cancel();
  }
}

export class Channel {
  readonly #place: Place;
  readonly #named: number | undefined;
  #target: string | undefined;
  #ownership: Ownership | undefined;
  #client: Client | undefined;
  #stamp = "";
  #older: Client[] = [];
  #closed = false;

  constructor(place: Place) {
    this.#place = place;
    this.#named = namedUser(place.environ);
    if (place.address || place.environ["EQUABOT_BROKER_ADDRESS"]) void this.target; // a wrong one is reported at once
  }

  /** Where the broker is. A default is resolved at the first call, because it depends on the sockets that exist. */
  get target(): string {
    const { address, agent, environ, files } = this.#place;
    return (this.#target ??= resolveAddress(address, { agent, environ, identified: files.identify }));
  }

  /** The answer of a call, within so many milliseconds. */
  async ask<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageShape<I>,
    timeoutMs: number,
  ): Promise<MessageShape<O>> {
    const client = this.#ready();
    const metadata = this.#metadata();
    return awake(
      new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          path(method),
          (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
          (bytes: Buffer) => fromBinary(method.output, bytes),
          request,
          metadata,
          { deadline: Date.now() + timeoutMs },
          (failed, answer) => (failed ? reject(convert.error(failed, this.target)) : resolve(answer!)),
        );
      }),
    );
  }

  /** Begins a stream. It does not wait: a failure shows at the first read. */
  stream(request: LeaseRequest): EventStream {
    const client = this.#ready();
    const method = Service.method.streamLease;
    const call = client.makeServerStreamRequest(
      path(method),
      (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
      (bytes: Buffer) => convert.event(fromBinary(method.output, bytes)),
      convert.acquireRequest(request),
      this.#metadata(),
    );
    call.on("error", () => undefined); // the reader gets it
    return new EventStream(call[Symbol.asyncIterator]() as AsyncIterator<LeaseEvent>, () => call.cancel());
  }

  /** Ends every call and the connection. Idempotent. */
  close(): void {
    this.#closed = true;
    for (const client of [...this.#older, this.#client]) client?.close();
    this.#older = [];
    this.#client = undefined;
  }

  #ready(): Client {
    if (this.#closed) throw new EquabotError("CLOSED", "this broker was closed: call connect() again");
    const target = this.target;
    if (isSocket(target)) {
      this.#ownership ??= new Ownership(socketPath(target), this.#named);
      this.#ownership.check();
      return (this.#client ??= new Client(target, unreferenced(credentials.createInsecure()), OPTIONS));
    }
    return this.#readyOverTcp(target);
  }

  /** After a certificate was renewed, the next call opens another connection. Calls under way stay on the old one. */
  #readyOverTcp(target: string): Client {
    const { files } = this.#place;
    const stamp = files.stamp();
    if (this.#client !== undefined && stamp === this.#stamp) return this.#client;
    const secured: ChannelCredentials = files.any ? files.credentials() : credentials.createInsecure();
    for (const client of this.#older) client.close();
    this.#older = this.#client === undefined ? [] : [this.#client];
    this.#stamp = stamp;
    return (this.#client = new Client(target, unreferenced(secured), OPTIONS));
  }

  #metadata(): Metadata {
    const metadata = new Metadata();
    const { files } = this.#place;
    const authorization = isSocket(this.target) ? undefined : files.authorization();
    if (authorization !== undefined) metadata.set("authorization", authorization);
    return metadata;
  }
}

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}
