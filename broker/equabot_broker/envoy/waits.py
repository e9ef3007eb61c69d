"""Shortens the wait that a vendor asks for (`retry-after`) if another profile is ready: SDKs would sleep that long for
nothing. The access log still has the vendor's own headers, which count for the profile."""

from collections.abc import Mapping
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from equabot_broker.domain.answers import wait
from equabot_broker.engine.leases.gateway_leases import GatewayLeases

NAMESPACE: Final = "equabot"
"""The metadata namespace of the vendor's own headers in the access log."""
HEADERS: Final = ("retry-after", "retry-after-ms")
_FINAL: Final = "x-should-retry"
"""The header by which a vendor asks its SDK not to retry, because the vendor knows of one credential."""
STATUSES: Final = "429|503|529"
"""The statuses of answers that ask the client to wait."""
_SOON: Final = 1
"""Seconds within which the broker receives the report of the answer, so that the next request uses the other profile."""
_REPLACE: Final = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


class Waits:
    """Shortens the wait in the headers of an answer."""

    def __init__(self, gateway_leases: GatewayLeases) -> None:
        self._gateway_leases = gateway_leases

    def continued(self, response_headers: Any, fields: Mapping[str, str], *, now: float) -> pb.ProcessingResponse:
        """The instruction to Envoy for the answer's headers. `fields` are the authorization's metadata of the request."""
        given = {one.key: (one.raw_value or one.value.encode()).decode("latin-1") for one in response_headers.headers.headers}
        vendor = {name: given[name] for name in HEADERS if name in given}
        common = pb.CommonResponse()
        answer = pb.ProcessingResponse(response_headers=pb.HeadersResponse(response=common))
        if (wait(vendor, now=now) or 0) <= _SOON or given.get(":status") not in STATUSES.split("|"):
            return answer
        token = bytes.fromhex(fields.get("token", ""))
        if not self._gateway_leases.has_another(token, profile=fields.get("profile", ""), model=fields.get("model", "")):
            return answer
        mutation = answer.response_headers.response.header_mutation
        mutation.remove_headers.extend((HEADERS[1], _FINAL))
        soon = HeaderValue(key=HEADERS[0], raw_value=str(_SOON).encode())
        mutation.set_headers.append(HeaderValueOption(header=soon, append_action=_REPLACE))
        answer.dynamic_metadata.update({NAMESPACE: vendor})
        return answer
