"""The composition root: configuration → a running broker. Everything is built here, and everything is taken down here."""

from broker.bootstrap.clearing import clear_stored
from broker.bootstrap.engine import Engine
from broker.bootstrap.serving import serve
from broker.bootstrap.stores import agent_stores, forget_copies, migrate_stores, refresh_login, seal_fault, sync_claude_login
from broker.bootstrap.surveying import Survey, survey

__all__ = [
    "Engine", "Survey", "agent_stores", "clear_stored", "forget_copies", "migrate_stores", "refresh_login", "seal_fault",
    "serve", "survey", "sync_claude_login",
]  # fmt: skip
