/** A connection that does not keep the process alive, as a timer after `unref()`. */

import type { ChannelCredentials } from "@grpc/grpc-js";
import type { Socket } from "node:net";

/**
 * An open stream would keep Node running for as long as the credential is open, and most scripts never close it.
 * gRPC has no option for that. Its credentials hand out each connected socket, so the socket is changed there. With a
 * gRPC that does it in another way, the process runs until `close()`.
 */
export function unreferenced(credentials: ChannelCredentials): ChannelCredentials {
  const original = credentials._createSecureConnector?.bind(credentials);
  if (original === undefined) return credentials;
  credentials._createSecureConnector = (...args) => {
    const connector = original(...args);
    const connect = connector.connect.bind(connector);
    connector.connect = async (socket) => {
      const connected = await connect(socket);
      quieten(connected.socket);
      return connected;
    };
    return connector;
  };
  return credentials;
}

function quieten(socket: Socket): void {
  socket.unref();
  socket.ref = () => socket;
}
