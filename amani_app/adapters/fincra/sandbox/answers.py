"""Status values, amounts and refusals in the sandbox's responses."""

from __future__ import annotations

from typing import Any

from amani_app.ports.payments import PaymentOutcome

STATUSES = {
    PaymentOutcome.WAITING: "processing",
    PaymentOutcome.SUCCESSFUL: "successful",
    PaymentOutcome.FAILED: "failed",
}


class SandboxRefusal(Exception):
    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.status, self.body = status, body
        super().__init__(body)


def major(amount: Any) -> str:
    """A JSON number or string as plain digits."""
    return f"{amount:.2f}" if isinstance(amount, float) else str(amount)


def refuse(status: int, kind: str, text: str) -> SandboxRefusal:
    """An exception that is rendered in the shape of Fincra's refusals."""
    return SandboxRefusal(status, {"success": False, "error": text, "errorType": kind})
