"""`api.md`: the gRPC services and messages: structure from the descriptors, text from the comments of the .proto files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor
from pages import literal, page, table

from equabot.broker.v1 import admin_pb2, broker_pb2

PROTO: Final = Path(__file__).parents[2] / "proto"
ABOUT: Final = """\
The package is `equabot.broker.v1`. `Broker` is served on the socket of each agent, and `Admin` on the admin socket alone.
Why a call is refused is in [Errors and reasons](errors.md); the Python client is in [Python client](python-client.md).
The `.proto` files are in `proto/`."""
_OPENS: Final = re.compile(r"(?:service|message|enum) (\w+) {")
_NAMED: Final = re.compile(r"rpc (\w+)\(|(?:[\w.<>, ]+ )?(\w+) = -?\d+")
_SCALARS: Final = {
    number: name.removeprefix("TYPE_").lower() for name, number in vars(FieldDescriptor).items() if name.startswith("TYPE_")
}


def write() -> str:
    """The page."""
    files = (broker_pb2.DESCRIPTOR, admin_pb2.DESCRIPTOR)
    return page("gRPC API", ABOUT, *(part for file in files for part in _file(file)))


def _file(file: FileDescriptor) -> Iterator[str]:
    comments = _comments((PROTO / file.name).read_text(encoding="utf-8"))
    yield f"## {file.name}"
    yield _paragraphs(comments.get("", ""))
    for service in file.services_by_name.values():
        yield _service(service, comments)
    for message in file.message_types_by_name.values():
        yield from _message(message, comments)
    for enum in file.enum_types_by_name.values():
        yield _enum(enum, comments)


def _service(service: ServiceDescriptor, comments: dict[str, str]) -> str:
    rows = [
        (
            f"[{literal(method.name)}](#{method.name.lower()})",
            _linked(method.input_type, stream=method.client_streaming),
            _linked(method.output_type, stream=method.server_streaming),
        )
        for method in service.methods
    ]
    calls = (
        f"#### {method.name}\n\n{_paragraphs(comments.get(f'{service.name}.{method.name}', ''))}" for method in service.methods
    )
    about = f"Service. {_paragraphs(comments.get(service.name, ''))}"
    return "\n\n".join((f"### {service.name}", about, table(("call", "request", "answer"), rows), *calls))


def _message(message: Descriptor, comments: dict[str, str], within: str = "") -> Iterator[str]:
    if message.GetOptions().map_entry:
        return
    name = f"{within}{message.name}"
    rows = [
        (literal(field.name), str(field.number), _type(field), comments.get(f"{name}.{field.name}", ""))
        for field in message.fields
    ]
    fields = table(("field", "number", "type", "meaning"), rows) if rows else "The message has no fields."
    yield "\n\n".join(filter(None, (f"### {name}", _paragraphs(comments.get(name, "")), fields)))
    for nested in message.nested_types:
        yield from _message(nested, comments, f"{name}.")
    for enum in message.enum_types:
        yield _enum(enum, comments, f"{name}.")


def _enum(enum: EnumDescriptor, comments: dict[str, str], within: str = "") -> str:
    name = f"{within}{enum.name}"
    rows = [(literal(value.name), str(value.number), comments.get(f"{name}.{value.name}", "")) for value in enum.values]
    return "\n\n".join(
        filter(None, (f"### {name}", _paragraphs(comments.get(name, "")), table(("value", "number", "meaning"), rows)))
    )


def _type(field: FieldDescriptor) -> str:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        key, value = message.fields
        return f"map of {_type(key)} to {_type(value)}"
    repeated = "list of " if field.is_repeated else ""
    return repeated + (_linked(field.enum_type or message) if field.enum_type or message else _SCALARS[field.type])


def _linked(kind: Any, *, stream: bool = False) -> str:
    name = kind.full_name.removeprefix("equabot.broker.v1.")
    link = literal(name) if "google." in name else f"[`{name}`](#{name.lower().replace('.', '')})"
    return f"stream of {link}" if stream else link


def _comments(text: str) -> dict[str, str]:
    """Comments of declarations by their name within the file; that of the file itself by the empty name."""
    found: dict[str, str] = {}
    inside: list[str] = []
    above: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("//"):
            above.append(line[2:].removeprefix(" "))
            continue
        declared = _OPENS.match(line)
        named = declared or _NAMED.match(line)
        if named or line.startswith("syntax"):
            name = "" if line.startswith("syntax") else ".".join([*inside, next(filter(None, named.groups()))])
            found[name] = "\n".join(above)
        if declared and not line.endswith("}"):
            inside.append(declared[1])
        elif line == "}":
            inside.pop()
        above = []
    return found


def _paragraphs(comment: str) -> str:
    """The comment as Markdown: each paragraph and each item of a list on one line."""
    blocks: list[str] = []
    before = ""
    for line in comment.splitlines():
        item = line.startswith("- ")
        goes_on = bool(before) and not item and (line.startswith("  ") or not before.startswith("- "))
        if line.strip() and goes_on:
            blocks[-1] += f" {line.strip()}"
        elif line.strip():
            blocks.append(("\n" if item and before.startswith("- ") else "\n\n") + line.strip())
        before = blocks[-1].strip() if line.strip() else ""
    return "".join(blocks).strip()
