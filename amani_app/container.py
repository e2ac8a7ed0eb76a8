"""The composition root: the only place that knows which adapter stands behind which port."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app
from sqlalchemy import Engine

from amani_app.adapters.database.revisions import DatabaseSchema
from amani_app.application.lifecycle import Lifecycle
from amani_app.application.readiness import CheckHealth, CheckReadiness
from amani_app.build_info import BuildInfo
from amani_app.ports.schema import SchemaSource
from amani_app.settings import Settings


@dataclass(frozen=True)
class Container:
    """Everything the entry points use, built once a process."""

    settings: Settings
    build: BuildInfo
    engine: Engine
    lifecycle: Lifecycle
    schema: SchemaSource
    readiness: CheckReadiness
    health: CheckHealth


def build_container(settings: Settings, build: BuildInfo, engine: Engine) -> Container:
    """Wire the use cases to their adapters."""
    lifecycle = Lifecycle()
    schema = DatabaseSchema(engine)
    return Container(
        settings=settings,
        build=build,
        engine=engine,
        lifecycle=lifecycle,
        schema=schema,
        readiness=CheckReadiness(lifecycle, schema, settings.readiness_cache),
        health=CheckHealth(schema),
    )


def container(app: Flask | None = None) -> Container:
    """The container of *app*, by default of the current one."""
    found: Container = (app or current_app).extensions["amani"]
    return found
