"""The proxy of a host: HAProxy in one container, its configuration and its runtime API."""

from deploy.proxy.container import (
    Change,
    close,
    ensure,
    facts,
    is_ready,
    record_live,
    remove,
    revert,
    set_maintenance,
    shift,
)
from deploy.proxy.runtime import (
    ProxyError,
    read_servers,
    retire,
    set_state,
    set_weight,
    wait_drained,
    wait_until_up,
    watch,
)
from deploy.proxy.settings import container_name

__all__ = [
    "Change",
    "ProxyError",
    "close",
    "container_name",
    "ensure",
    "facts",
    "is_ready",
    "read_servers",
    "record_live",
    "remove",
    "retire",
    "revert",
    "set_maintenance",
    "set_state",
    "set_weight",
    "shift",
    "wait_drained",
    "wait_until_up",
    "watch",
]
