"""A configuration file of endpoints, and how its mistakes are told."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from link_kv import ConfigError, endpoints
from link_kv._core.endpoints import config as endpoint_config
from link_kv._core.endpoints.config import FLAG, NUMBER, TABLE, TEXT, Accepted


def find(module: str, provider: bool) -> Accepted:
    if module == "kv_store" and provider:
        return Accepted(dict, {})
    if module == "kv_store_key" and not provider:
        return Accepted(
            int,
            {"initial_value": endpoint_config.ANY, "get_on_set": FLAG, "max_interval": NUMBER, "unit": TEXT},
        )
    raise ConfigError(f"{module!r} is no module")


def read(text: str) -> endpoint_config.Configuration:
    return endpoint_config.read(dedent(text).lstrip("\n"), "kv.yaml", find)


SEED = """
    providers:
      - name: kv_example
        module: kv_store
        endpoints:
          - name: foo
            module: kv_store_key
          - name: bar
            module: kv_store_key
            initial_value: {a: [1, on]}
            get_on_set: yes
"""


def test_what_it_says() -> None:
    found = read(SEED)
    [provider] = found.providers
    assert (provider.name, provider.kind, provider.at.line) == ("kv_example", dict, 2)
    foo, bar = provider.endpoints
    assert (foo.name, foo.keywords, foo.kind) == ("foo", {}, int)
    assert bar.keywords == {"initial_value": {"a": [1, True]}, "get_on_set": True}
    assert found.node is None
    assert found.setup_calls == []


def test_a_node_and_setup_calls() -> None:
    found = read(
        SEED
        + """
    nodename: somenode
    setup_calls:
      - target: foo
        method: on_set
        args: 3.1
      - {target: kv_example, method: schedule, args: [on], kwargs: {routing_key_specifier: x}}
"""
    )
    assert found.node == "somenode"
    assert [(call.target, call.method, call.args, call.kwargs) for call in found.setup_calls] == [
        ("foo", "on_set", [3.1], {}),
        ("kv_example", "schedule", [True], {"routing_key_specifier": "x"}),
    ]


def test_the_text_of_dripline_lacks_a_space() -> None:
    text = SEED.replace("- name: foo", "-name: foo")
    with pytest.raises(ConfigError, match=r"kv\.yaml, line 5, column 7: a space is missing after the dash"):
        read(text)
    verbatim = text.replace("- name: bar", "-name: bar")
    with pytest.raises(ConfigError, match="line 5, column 7: a space is missing after the dash"):
        read(verbatim)
    with pytest.raises(ConfigError, match="line 4, column 7: a space is missing after the dash"):
        read(
            """
            providers:
              - name: kv_example
                endpoints:
                  -name: foo
                module: kv_store
            """
        )


NO_KEYWORD = (
    "'inital_value' is no keyword of an endpoint of module kv_store_key; did you mean 'initial_value'"
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("initial_value", "inital_value", f"line 9, column 9: {NO_KEYWORD}"),
        ("get_on_set: yes", "get_on_set: maybe", "line 10, column 21: get_on_set: 'maybe' is not true or"),
        ("get_on_set: yes", "max_interval: true", "max_interval: True is not a number"),
        ("get_on_set: yes", "get_on_set: 1", "get_on_set: 1 is not true or false"),
        ("name: foo", "name: 5", "line 5, column 15: name: 5 is not a text"),
        ("name: foo", "name: BAR", "line 7, column 15: the name 'bar' is at line 5 already"),
        ("module: kv_store_key\n", "\n", "line 5, column 9: an endpoint needs a 'module'"),
        ("module: kv_store\n", "module: kv_shop\n", "line 3, column 13: module: 'kv_shop' is no module"),
        ("providers:", "provider:", "'provider' is no keyword of the file; did you mean 'providers'"),
        ("- name: kv_example", "- name: [", "line 4, column 14: expected"),
        ("- name: kv_example", "- name: &a kv_example\n    name: x", "'name' is given twice"),
        ("- name: kv_example", "- just text\n  - name: kv", "line 2, column 5: a provider is a mapping"),
        ("{a: [1, on]}", "!!python/object/apply:os.getcwd []", "os.getcwd: what a tag asks for is not made"),
        ("{a: [1, on]}", "!!python/name:os.getcwd", "could not determine a constructor for the tag"),
        ("- name: kv_example", "- 7: x\n    name: kv_example", "7 is no keyword of a provider"),
    ],
)
def test_a_mistake_has_its_place(old: str, new: str, message: str) -> None:
    text = dedent(SEED).lstrip("\n").replace(old, new, 1)
    with pytest.raises(ConfigError, match=message) as raised:
        endpoint_config.read(text, "kv.yaml", find)
    assert re.match(r"kv\.yaml(, line \d+, column \d+)?: ", str(raised.value))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2001-02-30", "line 1, column 12: '2001-02-30' is no timestamp; if it is a text, quote it"),
        ("!!timestamp x", "'x' is no timestamp"),
        ("0x_", "'0x_' is no int"),
        ("!!int abc", "'abc' is no int"),
        ("!!float x", "'x' is no float"),
        ("!!bool x", "'x' is no bool"),
        ("9" * 5000, "is no int"),
        ("{2001-02-30: 1}", "line 1, column 13: '2001-02-30' is no timestamp"),
        ('"\\UFFFFFFFF"', "an escaped character that does not exist"),
        ("{<<: 1}", "line 1, column 17: << takes a mapping"),
    ],
)
def test_what_yaml_itself_stumbles_over(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        endpoint_config.read(f"providers: {value}", "kv.yaml", find)


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    for repeat in ("[*a{0},*a{0},*a{0}]", "{{b: *a{0}, c: *a{0}, d: *a{0}}}", "{{<<: [*a{0},*a{0},*a{0}]}}"):
        lines = [f"a{number}: &a{number} {repeat.format(number - 1)}" for number in range(1, 60)]
        with pytest.raises(ConfigError, match="aliases repeat more than 10000 values"):
            endpoint_config.read("\n".join(["a0: &a0 {x: 1}", *lines]), "kv.yaml", find)


def test_keywords_are_shared_by_aliases() -> None:
    text = """
        providers:
          - name: kv
            module: kv_store
            endpoints:
              - &foo {name: foo, module: kv_store_key, unit: m, max_interval: 1}
              - {max_interval: 2, <<: *foo, name: bar}
              - {<<: [{unit: V}, *foo], name: baz}
    """
    foo, bar, baz = read(text).providers[0].endpoints
    assert foo.keywords == {"unit": "m", "max_interval": 1}
    assert bar.keywords == {"unit": "m", "max_interval": 2}
    assert baz.keywords == {"unit": "V", "max_interval": 1}


@pytest.mark.parametrize("module", [".x", "..", "a..b", "os.", "broken.X", "raising.X"])
def test_a_module_that_cannot_be_imported(tmp_path: Path, module: str) -> None:
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "raising.py").write_text("raise RuntimeError('not today')")
    file = tmp_path / "kv.yaml"
    file.write_text(f"providers:\n  - name: a\n    module: {module}\n")
    before = list(sys.path)
    try:
        with pytest.raises(ConfigError, match=r"line 3, column 13: module: .* cannot be imported: "):
            endpoints.load(file)
    finally:
        sys.path[:] = before


def test_what_is_no_configuration() -> None:
    for text, message in (
        ("", "is empty"),
        ("[]", "the file is a mapping"),
        ("a: 5", "'a' is no keyword"),
        ("providers: &a [*a]", "contains itself"),
        ("providers: 5", "providers: is a list"),
        ("node: x", "has no providers"),
        ("\x00", "is no YAML"),
        ("[" * 3000, "nested too deeply|line"),
    ):
        with pytest.raises(ConfigError, match=message):
            read(text)
    assert read("providers:").providers == []


def test_tables_are_plain() -> None:
    def with_table(module: str, provider: bool) -> Accepted:
        return Accepted(dict, {"table": TABLE})

    found = endpoint_config.read(
        "providers: [{name: a, module: b, table: {on: 1, '2': {x: [y]}}}]", "kv.yaml", with_table
    )
    assert found.providers[0].keywords == {"table": {True: 1, "2": {"x": ["y"]}}}
