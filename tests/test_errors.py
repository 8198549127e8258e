"""The error tree: every error has a code that travels, an exit code, an HTTP status."""

from __future__ import annotations

import pytest

from atmo import errors


def every(root: type[errors.AtmoError]) -> list[type[errors.AtmoError]]:
    return [root, *(deeper for child in root.__subclasses__() for deeper in every(child))]


@pytest.mark.parametrize("kind", every(errors.AtmoError), ids=lambda kind: kind.__name__)
def test_an_error_survives_the_journey_between_nodes_as_its_own_kind(kind: type[errors.AtmoError]) -> None:
    back = errors.by_code(kind.code, "It failed.", hint="Do this.", retry_after_s=2.5)
    assert issubclass(kind, type(back))
    assert back.code == kind.code
    assert str(back) == "It failed. Do this."
    assert 0 < kind.exit_code < 128
    assert 400 <= kind.http_status < 600


def test_retry_after_comes_along() -> None:
    back = errors.by_code("overloaded", "Busy.", retry_after_s=2.5)
    assert isinstance(back, errors.Overloaded)
    assert back.retry_after_s == 2.5


def test_an_unknown_code_of_a_newer_peer_is_a_failed_request() -> None:
    assert type(errors.by_code("something_new", "Hm.")) is errors.RequestError
