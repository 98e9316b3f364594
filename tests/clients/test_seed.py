"""A client of one's own, as kamaki's page on extending its clients describes it."""

from __future__ import annotations

from typing import Any

import pytest

from link_kv import EtcdMiddleware
from link_kv.clients import Client, ClientError, SilentEvent


class MyNewClient(Client):
    """Photographs, each a tree of its own."""

    MAX_THREADS = 3

    def my_first_method(self, **args: Any) -> str:
        """Store a photograph, and say where."""
        try:
            return str(self.post("photographs", json=args).headers["location"])
        except ClientError as error:
            raise ClientError(f"MyError: {error}", error.status, error.details) from error

    def my_second_method(self, **params: Any) -> Any:
        """Look one up."""
        return self.get("photographs/{number}".format(**params)).json

    def _single_threaded_method(self, **args: Any) -> int:
        return self.put(f"blocks/{args['number']}", data=args["number"]).status_code

    def multithread_method(self, blocks: int) -> list[SilentEvent]:
        thread_list: list[SilentEvent] = []
        events: list[SilentEvent] = []
        self._init_thread_limit()
        while len(events) < blocks or thread_list:
            if len(events) < blocks:
                event = SilentEvent(self._single_threaded_method, number=len(events))
                event.start()
                events.append(event)
                thread_list.append(event)
            thread_list = self._watch_thread_limit(thread_list)
        return events


def test_a_client_of_ones_own(middleware: EtcdMiddleware) -> None:
    client = MyNewClient("/lab", middleware)
    assert client.my_first_method(title="the sky", size=[1, 2]) == "photographs/1"
    assert client.my_second_method(number=1) == {"title": "the sky", "size": [1, 2]}
    with pytest.raises(ClientError, match="404 Not Found"):
        client.my_second_method(number=2)
    middleware["/lab/photographs"] = "a leaf"
    with pytest.raises(ClientError, match=r"^MyError: 409 Conflict: /lab/photographs: ") as caught:
        client.my_first_method(title="lost")
    assert caught.value.status == 409


def test_the_multithreaded_method_of_the_page(middleware: EtcdMiddleware) -> None:
    client = MyNewClient("/lab", middleware)
    events = client.multithread_method(20)
    assert [(event.exception, event.value, event.is_alive()) for event in events] == [
        (False, 201, False)
    ] * 20
    assert middleware["/lab/blocks"] == {str(number): number for number in range(20)}
    assert 1 <= client._thread_limit <= 3
