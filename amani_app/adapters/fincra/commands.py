"""`flask amani sandbox`: a server with the HTTP API of Fincra."""

from __future__ import annotations

import click


def make_sandbox_command(secret: str, key: str, environment: str) -> click.Command:
    """The command; `secret` signs the notices, and `key` is the API key that callers need."""

    @click.command("sandbox")
    @click.option("--host", default="127.0.0.1", show_default=True)
    @click.option("--port", default=8090, show_default=True)
    @click.option(
        "--webhook-url",
        default="http://127.0.0.1:8000/api/v1/webhooks/fincra",
        show_default=True,
        help="The URL that receives the notices.",
    )
    @click.option(
        "--switch", "arguments", multiple=True, metavar="NAME=VALUE", help="May be repeated."
    )
    def sandbox(host: str, port: int, webhook_url: str, arguments: tuple[str, ...]) -> None:
        """Serve a simulation of Fincra's API, with the keys of the FINCRA_ settings.

        Example: flask amani sandbox --switch payouts=successful --switch payout_fee=53.75
        """
        from werkzeug.serving import run_simple

        from amani_app.adapters.fincra.sandbox import create_sandbox
        from amani_app.adapters.fincra.sandbox.webhooks import read_switches

        if not secret or not key:
            raise click.UsageError("FINCRA_SECRET_KEY and FINCRA_WEBHOOK_SECRET must be set")
        if environment == "production":
            raise click.UsageError("the sandbox does not run if ENVIRONMENT=production")
        try:
            switches = read_switches(arguments)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--switch") from None
        app = create_sandbox(webhook_url, secret, key, f"http://{host}:{port}", switches)
        run_simple(host, port, app, threaded=True)

    return sandbox
