"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import pytest

import link_kv
from link_kv.local import LocalEtcd
from link_kv.testing import ExistingEtcd

from .processes import get, gone, put

pytest_plugins = ("pytester",)


@pytest.fixture(autouse=True)
def _no_etcd_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINK_KV_TEST_ENDPOINTS", raising=False)


def test_the_client_writes_below_a_prefix_of_its_own(
    etcd: LocalEtcd | ExistingEtcd, etcd_prefix: str, etcd_client: link_kv.EtcdMiddleware
) -> None:
    assert etcd_client.prefix == etcd_prefix
    etcd_client["/a"] = 1
    assert get(etcd.endpoints[0], f"{etcd_prefix}/a") == "1"
    assert list(etcd_client) == ["/a"]


def test_each_test_has_its_prefix_on_one_server_that_ends_with_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        seen = set()

        def note(etcd, etcd_prefix):
            seen.add(etcd_prefix)
            with open('pids', 'a') as file:
                print(etcd.pid, file=file)

        def test_one(etcd, etcd_prefix):
            note(etcd, etcd_prefix)

        def test_two(etcd, etcd_prefix, etcd_client):
            note(etcd, etcd_prefix)
            assert etcd_client.prefix == etcd_prefix
            assert len(seen) == 2
            raise RuntimeError('a test that fails')
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    [pid] = {*(pytester.path / "pids").read_text().split()}
    assert gone(int(pid))


def test_each_worker_of_xdist_has_its_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import os, pathlib, time

        def meet(etcd):
            pathlib.Path(os.environ['PYTEST_XDIST_WORKER']).write_text(str(etcd.pid))
            end = time.monotonic() + 30
            while len(found := list(pathlib.Path().glob('gw*'))) < 2 and time.monotonic() < end:
                time.sleep(0.01)
            assert len({path.read_text() for path in found}) == 2

        def test_one(etcd):
            meet(etcd)

        def test_two(etcd):
            meet(etcd)
    """)
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=2)
    pids = [int(path.read_text()) for path in pytester.path.glob("gw*")]
    assert len(pids) == 2
    assert all(map(gone, pids))


def test_an_existing_cluster_is_used_and_left_clean(
    pytester: pytest.Pytester,
    etcd: LocalEtcd | ExistingEtcd,
    etcd_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [endpoint, *_] = etcd.endpoints
    put(endpoint, f"{etcd_prefix}/mine", "kept")
    monkeypatch.setenv("LINK_KV_TEST_ENDPOINTS", " , ".join(etcd.endpoints))
    pytester.makepyfile("""
        import link_kv

        def test_one(etcd, etcd_prefix, etcd_client):
            etcd_client['/a'] = {'b': [1, {}], 'c': 2}
            etcd_client.raw[etcd_prefix.encode() + b'//no/path/'] = b'\\xff'
            note(etcd, etcd_prefix)

        def test_two(etcd, etcd_prefix):
            with link_kv.EtcdMiddleware(endpoints=etcd.endpoints, prefix=etcd_prefix) as client:
                client['/a'] = 1
                del client.raw[etcd_prefix.encode() + b'/.link/layout']
            note(etcd, etcd_prefix)

        def note(etcd, etcd_prefix):
            with open('seen', 'a') as file:
                print(etcd_prefix, *etcd.endpoints, file=file)
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=2)
    for line in (pytester.path / "seen").read_text().splitlines():
        prefix, *endpoints = line.split()
        assert endpoints == etcd.endpoints
        with link_kv.EtcdMiddleware(endpoints=etcd.endpoints, prefix=prefix) as client:
            assert list(client.raw) == []
    assert get(endpoint, f"{etcd_prefix}/mine") == "kept"


def test_no_server_at_all_fails_the_test_with_the_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_KV_ETCD", "/nowhere/etcd")
    pytester.makepyfile("def test_one(etcd_client): pass")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*LocalEtcdError: the environment variable LINK_KV_ETCD names '/nowhere/etcd'*"]
    )


def test_a_run_that_does_not_use_it_pays_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_one():
            assert 'link_kv.testing' in sys.modules
            assert not {'grpc', 'etcd3', 'link_kv.local'} & {*sys.modules}
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
