"""What a vendor asks to be left alone for (`retry-after`), where another profile is ready: SDKs would sleep that long for
nothing. The access log still reports the vendor's own words, which count for the profile."""

from collections.abc import Mapping
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from equabot_broker.domain.answers import wait
from equabot_broker.engine.leases.gateway_leases import GatewayLeases

NAMESPACE: Final = "equabot"
"""Under which the access log reports the vendor's own words."""
HEADERS: Final = ("retry-after", "retry-after-ms")
_FINAL: Final = "x-should-retry"
"""In which a vendor says that its SDK need not ask again, for it knows of one credential."""
STATUSES: Final = "429|503|529"
"""Of answers with which a vendor asks for patience."""
_SOON: Final = 1
"""Seconds within which the broker has heard of the answer, so that the next request goes to the other profile."""
_REPLACE: Final = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


class Waits:
    """Shortens the wait of an answer that begins."""

    def __init__(self, gateway_leases: GatewayLeases) -> None:
        self._gateway_leases = gateway_leases

    def continued(self, response_headers: Any, fields: Mapping[str, str], *, now: float) -> pb.ProcessingResponse:
        """What Envoy is told to do with the answer's headers. `fields` are the authorization's words on the request."""
        given = {one.key: (one.raw_value or one.value.encode()).decode("latin-1") for one in response_headers.headers.headers}
        said = {name: given[name] for name in HEADERS if name in given}
        common = pb.CommonResponse()
        answer = pb.ProcessingResponse(response_headers=pb.HeadersResponse(response=common))
        if (wait(said, now=now) or 0) <= _SOON or given.get(":status") not in STATUSES.split("|"):
            return answer
        token = bytes.fromhex(fields.get("token", ""))
        if not self._gateway_leases.has_another(token, profile=fields.get("profile", ""), model=fields.get("model", "")):
            return answer
        mutation = answer.response_headers.response.header_mutation
        mutation.remove_headers.extend((HEADERS[1], _FINAL))
        soon = HeaderValue(key=HEADERS[0], raw_value=str(_SOON).encode())
        mutation.set_headers.append(HeaderValueOption(header=soon, append_action=_REPLACE))
        answer.dynamic_metadata.update({NAMESPACE: said})
        return answer
