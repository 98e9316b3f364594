"""`ClientError`: what it makes of a message, and that nothing of it is lost."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from link_kv import LinkKVError
from link_kv.clients import ClientError


@pytest.mark.parametrize(
    ("given", "message", "status", "details"),
    [
        (("some msg", 42, 0.28), "some msg", 42, 0.28),
        (("some msg", "fail", []), "some msg", 0, []),
        (("some msg", 42, "details on error"), "some msg", 42, "details on error"),
        (
            ('404 {"ExampleError": {"message": "a msg", "code": 42, "details": "dets"}}', 404, 0),
            "404 ExampleError (a msg)",
            42,
            ["dets"],
        ),
        (
            ('404 {"ExampleError": {"message": "a msg", "code": 42}}', 404, "details on error"),
            "404 ExampleError (a msg)",
            42,
            "details on error",
        ),
        (
            ('404 {"ExampleError": {"details": "Explain your error"}}', 404, "details on error"),
            "404 ExampleError",
            404,
            ["details on error", "Explain your error"],
        ),
        (("some msg\n", -10, ["details", "on", "error"]), "some msg\n", -10, ["details", "on", "error"]),
        # What only looks like such an error stays as it is.
        (("a {brace", 1), "a {brace", 1, []),
        (("{}", 1), "{}", 1, []),
        (('{"a": 1}', 1), '{"a": 1}', 1, []),
        (('{"a": {}, "b": {}}', 1), '{"a": {}, "b": {}}', 1, []),
        (("[{]", 1), "[{]", 1, []),
        (("",), "", 0, []),
    ],
)
def test_what_it_says(given: tuple[Any, ...], message: str, status: int, details: Any) -> None:
    error = ClientError(*given)
    assert (str(error), error.message) == (message, message)
    assert (error.status, error.details) == (status, details)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(twin), twin.status, twin.details) == (message, status, details)


def test_it_is_an_error_of_link_kv() -> None:
    assert issubclass(ClientError, LinkKVError)
    assert ClientError.__module__ == "link_kv.clients"


def test_details_that_were_given_are_not_changed() -> None:
    given = ["one"]
    assert ClientError('{"E": {"details": "two"}}', details=given).details == ["one", "two"]
    assert given == ["one"]
