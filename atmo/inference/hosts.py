"""What holds a model for a node: a worker process under a supervisor, or a server somewhere that has it already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from atmo.clock import Clock
from atmo.inference.engine import EngineEvent, ModelSpec
from atmo.inference.supervisor import Supervisor, SupervisorSettings

REMOTE = "remote"

if TYPE_CHECKING:
    from atmo.inference.remote import RemoteModel

Host: TypeAlias = "Supervisor | RemoteModel"


def open_host(
    spec: ModelSpec,
    on_event: Callable[[EngineEvent], None],
    clock: Clock,
    settings: SupervisorSettings | None = None,
) -> Host:
    """The host for `spec`, not started. on_event is called with each change of its state."""
    if spec.kind == REMOTE:
        from atmo.inference.remote import RemoteModel

        return RemoteModel(spec, on_event, clock)
    return Supervisor(spec, on_event, clock, settings=settings)
