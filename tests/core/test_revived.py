"""etcd3's messages on the installed protobuf. Runs under protobuf 5, 6 and 7.

What import does is tried in fresh interpreters, where every warning is an error.
"""

from __future__ import annotations

import ast
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from link_kv._core import revived

ROOT = Path(__file__).parents[2]
STUBS = ("kv_pb2", "auth_pb2", "rpc_pb2")
M = revived.messages()
CLASSES = {name: value for name, value in vars(M).items() if isinstance(value, type)}
SCHEMAS = {
    schema.name: schema
    for of_its_file in (M.KeyValue, M.User, M.RangeRequest)
    for schema in FileDescriptorProto.FromString(of_its_file.DESCRIPTOR.file.serialized_pb).message_type
}
# Number and bytes on the wire, from etcd's api/etcdserverpb/rpc.proto.
ADDED = [
    ("WatchRequest", "progress_request", 3, M.WatchProgressRequest(), b"\x1a\x00"),
    ("WatchCreateRequest", "watch_id", 7, 5, b"\x38\x05"),
    ("WatchCreateRequest", "fragment", 8, True, b"\x40\x01"),
    ("WatchResponse", "fragment", 7, True, b"\x38\x01"),
    ("Member", "isLearner", 5, True, b"\x28\x01"),
    ("StatusResponse", "errors", 8, ["a", "b"], b"\x42\x01a\x42\x01b"),
    ("AuthStatusResponse", "header", 1, M.ResponseHeader(revision=5), b"\x0a\x02\x18\x05"),
    ("AuthStatusResponse", "enabled", 2, True, b"\x10\x01"),
    ("AuthStatusResponse", "authRevision", 3, 5, b"\x18\x05"),
]


def installed_etcd3() -> Path:
    spec = PathFinder.find_spec("etcd3")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def python(code: str, *path: Path, options: tuple[str, ...] = (), args: tuple[str, ...] = ()) -> str:
    """What the code prints in a fresh interpreter that looks for modules in `path` first."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code, *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


# -- messages


def fill(message: Any, chance: random.Random, depth: int = 0) -> None:
    """Set every field of a message; of a oneof, one."""
    schema = SCHEMAS[message.DESCRIPTOR.name]
    chosen = {
        i: chance.choice([f.name for f in schema.field if f.oneof_index == i])
        for i in range(len(schema.oneof_decl))
    }
    for field in schema.field:
        if field.HasField("oneof_index") and chosen[field.oneof_index] != field.name:
            continue
        if field.type == field.TYPE_MESSAGE:
            if depth == 3:  # transactions nest
                continue
            target = getattr(message, field.name)
            if field.label == field.LABEL_REPEATED:
                for _ in range(2):
                    fill(target.add(), chance, depth + 1)
            else:
                target.SetInParent()
                fill(target, chance, depth + 1)
        elif field.label == field.LABEL_REPEATED:
            getattr(message, field.name).extend(value(message, field, chance) for _ in range(3))
        else:
            setattr(message, field.name, value(message, field, chance))


def value(message: Any, field: FieldDescriptorProto, chance: random.Random) -> Any:
    """A value for a field that is not its default, for the default is not sent."""
    if field.type == field.TYPE_ENUM:
        numbers = [v.number for v in message.DESCRIPTOR.fields_by_name[field.name].enum_type.values]
        return chance.choice([n for n in numbers if n] or numbers)
    return chance.choice(
        {
            field.TYPE_INT64: [1, -1, 2**63 - 1, -(2**63)],
            field.TYPE_UINT64: [1, 2**63, 2**64 - 1],
            field.TYPE_UINT32: [1, 2**32 - 1],
            field.TYPE_BOOL: [True],
            field.TYPE_STRING: ["a", "/päth/\U0001f511", "x" * 300],
            field.TYPE_BYTES: [b"a", b"\0\xff\xfe", bytes(range(256)) * 9],
        }[field.type]
    )


@pytest.mark.parametrize("name", CLASSES)
def test_round_trip(name: str) -> None:
    cls = CLASSES[name]
    reached = set()
    for seed in range(20):
        message = cls()
        fill(message, random.Random(seed))
        sent = message.SerializeToString(deterministic=True)
        received = cls.FromString(sent)
        assert received == message
        assert received.SerializeToString(deterministic=True) == sent
        reached |= {field.name for field, _ in received.ListFields()}
    assert reached == set(cls.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("name", CLASSES)
def test_unknown_fields_survive(name: str) -> None:
    """So that what a newer etcd says is not lost on the way through."""
    cls = CLASSES[name]
    message = cls()
    fill(message, random.Random(0))
    unknown = b"\xc2\x3e\x05later"  # field 1000, five bytes
    sent = message.SerializeToString(deterministic=True)
    received = cls.FromString(sent + unknown)
    assert received.SerializeToString(deterministic=True) == sent + unknown
    assert [f.name for f, _ in received.ListFields()] == [f.name for f, _ in message.ListFields()]


@pytest.mark.parametrize(("message", "field", "number", "content", "wire"), ADDED)
def test_added_fields(message: str, field: str, number: int, content: Any, wire: bytes) -> None:
    cls = CLASSES[message]
    assert cls.DESCRIPTOR.fields_by_name[field].number == number
    assert cls(**{field: content}).SerializeToString() == wire
    assert getattr(cls.FromString(wire), field) == content


def test_a_progress_request_replaces_the_other_requests() -> None:
    request = M.WatchRequest(create_request=M.WatchCreateRequest(key=b"k"))
    request.progress_request.SetInParent()
    assert request.WhichOneof("request_union") == "progress_request"
    assert not request.HasField("create_request")
    assert M.AuthStatusRequest().SerializeToString() == b""


def test_all_the_rest_is_as_etcd3_has_it() -> None:
    """Read a second way, by Python's own parser, the installed stubs hold the same but for what was added."""
    added = {(message, field) for message, field, *_ in ADDED}
    names = set()
    for stub in STUBS:
        tree = ast.parse((installed_etcd3() / "etcdrpc" / f"{stub}.py").read_bytes())
        literals = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        longest = max((x for x in literals if isinstance(x, str | bytes)), key=len)
        theirs = FileDescriptorProto.FromString(
            longest.encode("latin-1") if isinstance(longest, str) else longest
        )
        for message in theirs.message_type:
            ours = DescriptorProto.FromString(SCHEMAS[message.name].SerializeToString())
            for schema in (ours, message):
                for field in reversed(schema.field):
                    field.ClearField("json_name")
                    if (schema.name, field.name) in added:
                        schema.field.remove(field)
            assert ours == message
            names.add(message.name)
    assert names | {message for message, *_ in ADDED} | {"WatchProgressRequest", "AuthStatusRequest"} == set(
        CLASSES
    )


def test_enums() -> None:
    assert (M.NONE, M.NOSPACE, M.CORRUPT) == (0, 1, 2)
    assert M.AlarmType.Name(M.NOSPACE) == "NOSPACE"
    assert M.Compare.MOD == M.Compare.CompareTarget.Value("MOD") == 2
    assert M.Event.DELETE == 1


def test_the_process_has_one_set_of_messages() -> None:
    assert revived.messages() is M
    assert M.RangeResponse().kvs.add().__class__ is M.KeyValue


def test_threads_that_come_first_get_the_same_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revived, "_built", {})
    start = threading.Barrier(8)

    def first(_: int) -> Any:
        start.wait(10)
        return revived.messages()

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(first, range(8)))
    assert all(messages is got[0] for messages in got)
    assert got[0].PutRequest(key=b"k").SerializeToString() == b"\x0a\x01k"


# -- import etcd3


def test_import() -> None:
    code = """
from link_kv._core import revived
revived.install()
import etcd3
from etcd3.etcdrpc import auth_pb2, kv_pb2, rpc_pb2, rpc_pb2_grpc
import etcd3.etcdrpc.rpc_pb2
m = revived.messages()
assert etcd3.etcdrpc.RangeRequest is rpc_pb2.RangeRequest is m.RangeRequest
assert kv_pb2.KeyValue is m.KeyValue and auth_pb2.Permission is m.Permission
assert etcd3.etcdrpc.NOSPACE == rpc_pb2.AlarmType.Value('NOSPACE') == 1
assert rpc_pb2.DESCRIPTOR.package == 'etcdserverpb' and kv_pb2.DESCRIPTOR.name == 'kv.proto'
assert 'progress_request' in rpc_pb2.WatchRequest.DESCRIPTOR.fields_by_name
assert callable(rpc_pb2_grpc.KVStub) and etcd3.etcdrpc.KVStub is rpc_pb2_grpc.KVStub
import pickle
message = rpc_pb2.PutRequest(key=b'k')
assert pickle.loads(pickle.dumps(message)) == message
print(repr(rpc_pb2.PutRequest), rpc_pb2.__file__)
"""
    origin = installed_etcd3() / "etcdrpc" / "rpc_pb2.py"
    assert python(code) == f"<class 'etcd3.etcdrpc.rpc_pb2.PutRequest'> {origin}"


def test_import_of_a_generated_module_alone() -> None:
    code = "from link_kv._core import revived; revived.install(); import {}; print('ok')"
    for name in ("etcd3.etcdrpc.rpc_pb2_grpc", "etcd3.etcdrpc.kv_pb2"):
        assert python(code.format(name)) == "ok"


def test_import_after_one_that_failed() -> None:
    code = """
try:
    import etcd3
except TypeError:
    pass
from link_kv._core import revived
revived.install()
import etcd3
print(etcd3.etcdrpc.Member(name='m'))
"""
    assert python(code, options=("-W", "ignore")) == 'name: "m"'


def test_install_is_light_and_counts_once() -> None:
    code = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location('revived', sys.argv[1])
module = module_from_spec(spec)
spec.loader.exec_module(module)
before, finders = set(sys.modules), len(sys.meta_path)
module.install()
module.install()
assert set(sys.modules) == before and len(sys.meta_path) == finders + 1
heavy = {'google.protobuf', 'grpc', 'etcd3', 'ast', 'tokenize', 'inspect'} & before
print(sorted(heavy))
"""
    assert python(code, options=("-S",), args=(revived.__file__,)) == "[]"


def test_messages_need_neither_etcd3_nor_grpc() -> None:
    code = """
import sys
from link_kv._core import revived
before = set(sys.modules)
revived.messages()
print(sorted({'etcd3', 'etcd3.etcdrpc', 'grpc'} & (set(sys.modules) - before)))
"""
    assert python(code) == "[]"


# -- other forms of stubs


def modern_etcd3(directory: Path, needs: str = "") -> Path:
    """The installed etcd3, its stubs as protoc writes them today: the literal, and calls of the builder."""
    shutil.copytree(installed_etcd3(), directory / "etcd3", ignore=shutil.ignore_patterns("__pycache__"))
    for stub in STUBS:
        file = FileDescriptorProto.FromString(revived._serialized(f"etcd3.etcdrpc.{stub}"))
        literal = "".join(f"\\{byte:03o}" for byte in file.SerializeToString())
        imports = "from etcd3.etcdrpc import kv_pb2, auth_pb2" if stub == "rpc_pb2" else ""
        (directory / "etcd3" / "etcdrpc" / f"{stub}.py").write_text(
            f"""
from google.protobuf import descriptor_pool as _descriptor_pool
from google.protobuf import runtime_version as _runtime_version
from google.protobuf.internal import builder as _builder
{needs}
{imports}
DESCRIPTOR = _descriptor_pool.Default().AddSerializedFile(b'{literal}')
_globals = globals()
_builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, _globals)
_builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, '{stub}', _globals)
"""
        )
    return directory


VALIDATE = "_runtime_version.ValidateProtobufRuntimeVersion(\n _runtime_version.Domain.PUBLIC, {}, '', 'x')"
WHOSE = """
from link_kv._core import revived
revived.install()
import etcd3
from google.protobuf import descriptor_pool
whose = 'own' if etcd3.etcdrpc.rpc_pb2.DESCRIPTOR.pool is descriptor_pool.Default() else 'revived'
print(whose, etcd3.__file__, revived.messages().WatchCreateRequest(fragment=True).SerializeToString())
"""


@pytest.mark.parametrize(
    ("needs", "whose"),
    [
        ("", "own"),
        (VALIDATE.format("5,\n 26, 1"), "own"),
        (VALIDATE.format("99,\n 0,\n 0"), "revived"),
    ],
    ids=["any protobuf", "old protobuf", "protobuf to come"],
)
def test_stubs_that_import_as_they_are_stay(tmp_path: Path, needs: str, whose: str) -> None:
    origin = modern_etcd3(tmp_path, needs) / "etcd3" / "__init__.py"
    # Runtimes may warn of code that was generated one major version before them.
    got = python(WHOSE, tmp_path, options=("-W", "ignore::UserWarning"))
    assert got == f"{whose} {origin} {b'@' + bytes([1])!r}"


def test_the_choice_is_made_only_when_the_stubs_are_imported(tmp_path: Path) -> None:
    """A package that only shares the name is nobody's business."""
    (tmp_path / "etcd3").mkdir()
    (tmp_path / "etcd3" / "__init__.py").write_text("import etcd3.other")
    (tmp_path / "etcd3" / "other.py").write_text("")
    code = """
import sys
from link_kv._core import revived
revived.install()
before = set(sys.modules)
import etcd3
print(sorted(set(sys.modules) - before))
"""
    assert python(code, tmp_path) == "['etcd3', 'etcd3.other']"


ERROR = """
from link_kv._core import revived
try:
    revived.messages()
except ImportError as error:
    print(error)
"""


def test_etcd3_missing(tmp_path: Path) -> None:
    for key in ("purelib", "platlib"):
        for entry in Path(sysconfig.get_path(key)).iterdir():
            if not entry.name.startswith("etcd3") and not (tmp_path / entry.name).exists():
                (tmp_path / entry.name).symlink_to(entry)
    got = python(ERROR, tmp_path, options=("-S",))
    assert got == "etcd3 is not installed, and link_kv needs it: pip install etcd3"


def test_another_package_named_etcd3(tmp_path: Path) -> None:
    (tmp_path / "etcd3").mkdir()
    (tmp_path / "etcd3" / "__init__.py").write_text("")
    got = python(ERROR, tmp_path)
    assert got.startswith(f"{tmp_path / 'etcd3' / '__init__.py'} is not the etcd3 that link_kv needs")
    assert "it has no etcd3.etcdrpc.kv_pb2" in got
    assert "pip install etcd3" in got


def test_stubs_without_a_descriptor(tmp_path: Path) -> None:
    modern_etcd3(tmp_path)
    stub = tmp_path / "etcd3" / "etcdrpc" / "kv_pb2.py"
    stub.write_text("")
    assert f"no file descriptor in {stub}" in python(ERROR, tmp_path)


# -- on a server


def test_the_client_of_etcd3_works(etcd: Any, etcd_prefix: str) -> None:
    """In an interpreter of its own: the client's watch thread ends only with the process."""
    code = """
import sys
from link_kv._core import revived
revived.install()
import etcd3
endpoint, key = sys.argv[1:]
host, port = endpoint.rsplit(':', 1)
client = etcd3.client(host=host, port=int(port), timeout=10)
events, cancel = client.watch(key)
client.put(key, 'v')
assert client.get(key)[0] == b'v'
event = next(events)
assert isinstance(event, etcd3.events.PutEvent) and (event.key, event.value) == (key.encode(), b'v')
cancel()
assert client.status().version.startswith('3.')
assert [member.name for member in client.members]
lease = client.lease(30)
assert lease.remaining_ttl > 0
lease.revoke()
done, _ = client.transaction(
    compare=[client.transactions.value(key) == 'v'],
    success=[client.transactions.delete(key)],
    failure=[],
)
assert done
m = revived.messages()
assert list(client.maintenancestub.Status(m.StatusRequest()).errors) == []
assert not any(member.isLearner for member in client.clusterstub.MemberList(m.MemberListRequest()).members)
print('ok')
"""
    assert python(code, args=(etcd.endpoints[0], f"{etcd_prefix}/k")) == "ok"
