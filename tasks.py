"""The door of the deployer: `invoke --list` shows every task."""

from deploy.tasks import namespace

__all__ = ["namespace"]
