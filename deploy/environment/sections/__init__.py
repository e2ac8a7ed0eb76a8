"""The sections of an environment file, one model each.

`docs/environments.md` is generated from the docstrings of models and fields.
"""

from deploy.environment.sections.backups import (
    BackupsConfig,
    CopyConfig,
    KeepConfig,
    PitrConfig,
    RepositoryConfig,
)
from deploy.environment.sections.containers import (
    HardeningConfig,
    ImageConfig,
    NetworkConfig,
    RoleConfig,
)
from deploy.environment.sections.hosts import (
    HostConfig,
    JumpConfig,
    MachineConfig,
    ServerConfig,
    SSHLogin,
)
from deploy.environment.sections.proxy import HealthConfig, ProxyConfig, ProxyTimeouts
from deploy.environment.sections.releases import MigrationsConfig, RetentionConfig, TimeoutsConfig
from deploy.environment.sections.smoke import SmokeConfig
from deploy.environment.sections.values import (
    AbsolutePath,
    Address,
    Bytes,
    Name,
    Role,
    Seconds,
    Section,
    Value,
    Variable,
    WholeSeconds,
    check_filled,
    check_folder,
)

__all__ = [
    "AbsolutePath",
    "Address",
    "BackupsConfig",
    "Bytes",
    "CopyConfig",
    "HardeningConfig",
    "HealthConfig",
    "HostConfig",
    "ImageConfig",
    "JumpConfig",
    "KeepConfig",
    "MachineConfig",
    "MigrationsConfig",
    "Name",
    "NetworkConfig",
    "PitrConfig",
    "ProxyConfig",
    "ProxyTimeouts",
    "RepositoryConfig",
    "RetentionConfig",
    "Role",
    "RoleConfig",
    "Seconds",
    "Section",
    "ServerConfig",
    "SSHLogin",
    "SmokeConfig",
    "TimeoutsConfig",
    "Value",
    "Variable",
    "WholeSeconds",
    "check_filled",
    "check_folder",
]
