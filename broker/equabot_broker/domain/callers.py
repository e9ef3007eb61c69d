"""Who calls from elsewhere: what a call shows of its maker, and which agent that is. Deny by default."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from equabot_broker.domain.errors import PolicyDenied
from equabot_broker.domain.secret_value import SecretValue


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerProof:
    """What came with a call: the token of its `authorization` header, and the certificate (PEM) that its connection was opened
    with. Empty where there was none."""

    token: SecretValue | None = None
    certificate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """Which agent a caller is. From the steady instant `until` on that has to be asked again."""

    agent: str
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """The agents by what they may call as: service accounts as `namespace/name`, and names that certificates bear."""

    accounts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    certificates: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def of_account(self, account: str) -> str:
        """The agent of a service account. Raises PolicyDenied where it is nobody's."""
        if account not in self.accounts:
            raise PolicyDenied(
                f"service account {account!r} is no agent here: add it to agents.<agent>.service_accounts in the"
                " broker's configuration"
            )
        return self.accounts[account]

    def of_certificate(self, names: Sequence[str]) -> str:
        """The agent of a certificate that bears these names. Raises PolicyDenied where they are nobody's, or several's."""
        found = {self.certificates[name] for name in names if name in self.certificates}
        if len(found) == 1:
            return found.pop()
        borne = ", ".join(repr(name[:120]) for name in names[:3]) or "no name"
        if found:
            agents = ", ".join(sorted(found))
            raise PolicyDenied(
                f"the certificate ({borne}) is that of several agents, {agents}: issue one that names one of them"
            )
        raise PolicyDenied(
            f"the certificate ({borne}) is no agent's here: add its name to agents.<agent>.certificates in the broker's"
            " configuration"
        )
