"""The proxy of a host: HAProxy in one container, its configuration and its runtime API."""

from deploy.proxy.container import (
    ProxyChange,
    close,
    ensure,
    is_ready,
    is_running,
    read_facts,
    record_weights,
    remove,
    revert,
    set_maintenance,
    shift,
)
from deploy.proxy.runtime import (
    PATIENCE,
    ProxyError,
    read_servers,
    set_state,
    wait_drained,
    wait_until_up,
)
from deploy.proxy.settings import container_name

__all__ = [
    "PATIENCE",
    "ProxyChange",
    "ProxyError",
    "close",
    "container_name",
    "ensure",
    "read_facts",
    "is_ready",
    "is_running",
    "read_servers",
    "record_weights",
    "remove",
    "revert",
    "set_maintenance",
    "set_state",
    "shift",
    "wait_drained",
    "wait_until_up",
]
