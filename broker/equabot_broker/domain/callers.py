"""Maps the proof of a remote caller (a token or a certificate) to an agent. The default is to deny."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from equabot_broker.domain.errors import PolicyDenied
from equabot_broker.domain.secret_value import SecretValue


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerProof:
    """The proof that came with a call: the token of its `authorization` header, and the client certificate (PEM).

    `certificate` is empty without one.
    """

    token: SecretValue | None = None
    certificate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """The agent of a caller. From the steady instant `until` on, the caller is identified again."""

    agent: str
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """The agents by service account (`namespace/name`) and by name in a certificate."""

    accounts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    certificates: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def of_account(self, account: str) -> str:
        """The agent of a service account. Raises PolicyDenied for an account without an agent."""
        if account not in self.accounts:
            raise PolicyDenied(
                f"service account {account!r} does not map to an agent: add it to agents.<agent>.service_accounts in the"
                " configuration of the broker"
            )
        return self.accounts[account]

    def of_certificate(self, names: Sequence[str]) -> str:
        """The agent of a certificate with these names. Raises PolicyDenied if they map to no agent, or to several."""
        found = {self.certificates[name] for name in names if name in self.certificates}
        if len(found) == 1:
            return found.pop()
        borne = ", ".join(repr(name[:120]) for name in names[:3]) or "no name"
        if found:
            agents = ", ".join(sorted(found))
            raise PolicyDenied(
                f"the certificate ({borne}) maps to several agents, {agents}: issue a certificate that names one of them"
            )
        raise PolicyDenied(
            f"the certificate ({borne}) does not map to an agent: add its name to agents.<agent>.certificates in the"
            " configuration of the broker"
        )
