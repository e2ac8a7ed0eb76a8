"""The registry of strategies. An environment file chooses one by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.environment import documents
from deploy.errors import UsageError
from deploy.planning.blue_green import BlueGreen

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.planning.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    each.name: each
    for each in (
        BlueGreen(),
        # One line for each strategy.
    )
}


def choose_strategy(environment: Environment) -> Strategy:
    """The strategy that the environment file names.

    Raises `UsageError` with the place in the file if no strategy has that name.
    """
    chosen = STRATEGIES.get(environment.strategy)
    if chosen is not None:
        return chosen
    near = documents.suggest(environment.strategy, list(STRATEGIES))
    text = f"must be one of: {', '.join(sorted(STRATEGIES))}{near}, found {environment.strategy!r}"
    if environment.source is None:
        raise UsageError(f"{environment.name}: strategy: {text}")
    document = documents.read(environment.source)
    raise document.refuse(document.problem(("strategy",), text))
