"""The least a `grpc.aio` server can do: answer an empty message. What acquire is measured against."""

import asyncio
import sys

import grpc


async def main(path: str) -> None:
    """Serves `/baseline/Empty` on a Unix socket until killed."""

    async def empty(_request: bytes, _context: object) -> bytes:
        return b""

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(empty)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("baseline", {"Empty": handler})])
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
