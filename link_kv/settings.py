"""Settings of pydantic that are read from etcd, once or live::

    from pydantic_settings import BaseSettings
    from link_kv.settings import follow

    class Server(BaseSettings):
        port: int = 8080
        hosts: list[str] = []

    server = follow(Server, '/myproject/server')
    server.current.port                 # /myproject/server/port, or the environment's PORT, or 8080

`EtcdSettingsSource` is a source for ``settings_customise_sources``, without live reload. Needs the extra
``link_kv[pydantic]``.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

try:
    from pydantic import BaseModel, ValidationError
    from pydantic.errors import PydanticInvalidForJsonSchema
    from pydantic.json_schema import GenerateJsonSchema
    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
except ModuleNotFoundError as error:
    raise ImportError("link_kv.settings needs pydantic-settings: pip install 'link_kv[pydantic]'") from error

from link_kv import plan as plans
from link_kv._core.configuration.applied import TTL
from link_kv._core.configuration.fields import aliases, fit_model, problems_of
from link_kv._core.configuration.reload import SETTLE, Following
from link_kv._core.configuration.reload_tree import Invalid, Tree
from link_kv._core.configuration.text import stored_tree
from link_kv._core.wire.calls import run
from link_kv.errors import ConfigError, LinkKVError, PathError
from link_kv.live import hub_of
from link_kv.middleware import EtcdMiddleware
from link_kv.sessions import Session
from link_kv.tree import Place, encode_name

__all__ = ["EtcdSettingsSource", "Followed", "follow"]

M = TypeVar("M", bound=BaseModel)

_SOURCES = {
    "InitSettingsSource": "the program",
    "EnvSettingsSource": "environment",
    "DotEnvSettingsSource": "dotenv file",
    "SecretsSettingsSource": "secrets directory",
}


class _Schema(GenerateJsonSchema):
    """What settings accept, without their defaults: all who read etcd read it, and one may be a password."""

    def default_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])


class _Building:
    """A tree that settings are being made of, and what is learned meanwhile."""

    def __init__(self, at: Place, tree: Mapping[str, Any]) -> None:
        self.at = at
        self.tree = tree
        self.elsewhere: dict[str, str] = {}


_building: ContextVar[_Building | None] = ContextVar("link_kv_settings_building", default=None)


class EtcdSettingsSource(PydanticBaseSettingsSource):
    """Gives settings the values of a tree in etcd, read when they are made::

        @classmethod
        def settings_customise_sources(cls, settings_cls, init_settings, env_settings, **others):
            return init_settings, env_settings, EtcdSettingsSource(settings_cls, '/myproject/server')

    Args:
        settings_cls: the class, as pydantic-settings gives it.
        path: the tree. Its children are the fields, by their names or aliases; nested models are nested
            trees.
        client: the `EtcdMiddleware` to use; by default one is made for the reading, and closed.

    A field of text gets the text as it is in etcd, ``1.10``; a list also ``a, b``, and any field JSON.
    What is below the path and no field counts as ``extra``. Raises `Unavailable` when etcd does not answer:
    that nothing is configured is only ever said by an etcd that answered. `follow` reads live.
    """

    def __init__(
        self, settings_cls: type[BaseSettings], path: str, *, client: EtcdMiddleware | None = None
    ) -> None:
        super().__init__(settings_cls)
        self._path = path
        self._client = client

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """The value of one field, for pydantic-settings."""
        values = self()
        key = next((name for name in (*aliases(field), field_name) if name in values), field_name)
        return values.get(key), key, False

    def __call__(self) -> dict[str, Any]:
        """The values of all fields that are in etcd."""
        building = _building.get()
        if building is not None and building.at.path == "/" + self._path.strip("/"):
            building.elsewhere = _elsewhere(self.settings_sources_data)
            tree = building.tree
        elif self._client is not None:
            tree = _read(self._client, self._path)
        else:
            with EtcdMiddleware() as client:
                tree = _read(client, self._path)
        return fit_model([self.settings_cls], tree)


class Followed(Following[M], Generic[M]):
    """Settings that follow etcd; `follow` makes it.

    Attributes:
        current: the settings in force, an instance of the model that is never changed, only replaced as a
            whole. Keep it in a variable for what belongs together; reading it takes no lock.
        revision: the revision in force: the last one that changed something in the tree.
        error: why the newest settings are not in force, None while they are.
        problems: what did not validate in them: paths in etcd, and why.
        state: ``live``; ``stale`` while etcd is not reached; ``lost`` when it is not followed any more.

    A context manager that closes it. It goes on until it, or its client, is closed. Thread-safe. While etcd
    is down the last good settings stay in force, and what came meanwhile is caught up with. In a forked child
    it is ``lost``: follow there anew.
    """

    def __init__(self, client: EtcdMiddleware, model: type[M], at: Place, **options: Any) -> None:
        super().__init__(hub_of(client), [at.path], **options)
        self._model = model
        self._sealed = _sealed(model, at, client)
        self._last: _Building | None = None
        self._in_force: _Building | None = None
        self._own: EtcdMiddleware | None = None
        try:
            schema = model.model_json_schema(schema_generator=_Schema)
        except PydanticInvalidForJsonSchema:
            schema = None  # some types have none; then changes cannot be checked beforehand
        self._begin(lambda: Session(client, TTL, renew=True)._lease, schema, client._at_close)

    def _build(self, trees: list[Tree]) -> M:
        [tree] = trees
        at = tree.at
        if at.key in tree.held and at.segments:
            raise Invalid({at.path: "a value, and no settings"})
        shown = [(key, held.value) for key, held in sorted(tree.held.items()) if held.path is not None]
        found = stored_tree(at, shown)
        if not isinstance(found, dict):
            raise Invalid({at.path: "a list, and no settings"})
        building = _Building(at, found)
        token = _building.set(building)
        try:
            if issubclass(self._sealed, BaseSettings):
                return self._sealed()
            return self._sealed.model_validate(fit_model([self._model], found))
        except ValidationError as error:
            errors: Any = error.errors(include_url=False, include_context=False, include_input=False)
            raise Invalid(problems_of(errors, at, found, building.elsewhere)) from error
        finally:
            _building.reset(token)
            self._last = building

    def _put_in_force(self, trees: list[Tree], current: M) -> None:
        self._in_force = self._last

    def _elsewhere(self) -> dict[str, str]:
        return {} if self._in_force is None else self._in_force.elsewhere

    def close(self) -> None:
        """Follow no more; what is in force stays so. May be called twice, and from inside a callback.

        Closes the client as well, where `follow` made it. Does nothing in a forked child.
        """
        super().close()
        if self._own is not None:
            own, self._own = self._own, None
            own.close()


def follow(
    model: type[M],
    path: str,
    *,
    client: EtcdMiddleware | None = None,
    on_change: Callable[[M], object] | None = None,
    on_error: Callable[[LinkKVError], object] | None = None,
    settle: float = SETTLE,
) -> Followed[M]:
    """Make settings of a tree in etcd, and keep them current.

    Args:
        model: the class of the settings, of pydantic-settings or a plain model of pydantic. Arguments of the
            program, the environment, dotenv files and secrets go before etcd, and etcd before defaults; a
            class whose ``settings_customise_sources`` names an `EtcdSettingsSource` for the path has its own
            order.
        path: the tree. Its children are the fields; nested models are nested trees.
        client: the `EtcdMiddleware` to use; by default one is made, and closed with what this returns.
        on_change: called as ``on_change(settings)`` when new settings are in force.
        on_error: called as ``on_error(error)``, a `ConfigError`, once for each bad value, and with what ended
            the following, such as `AccessDenied`.
        settle: seconds for which changes are gathered, from the first one on, before they are put in force as
            one.

    Callbacks run in a thread of the client's, one after the other; what they raise is logged. They may block,
    write and close.

    Raises `ConfigError` when what is there does not validate, by its paths; `Unavailable` when etcd does not
    answer within the client's timeout; `AccessDenied`, `PathError`.

    While it lives, ``link-kv config status PATH`` shows this process and its revision.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigError(f"model={model!r}: is a class of pydantic's, such as a BaseSettings")
    own = client is None
    client = EtcdMiddleware() if client is None else client
    try:
        at = client._space.place(path)
        followed = Followed(client, model, at, on_change=on_change, on_error=on_error, settle=settle)
    except BaseException:
        if own:
            client.close()
        raise
    if own:
        followed._own = client
    return followed


def _read(client: EtcdMiddleware, path: str) -> dict[str, Any]:
    ex = client._exchange()
    at = ex.place(path)
    _, (leaf, first, second) = run(ex.read(plans.reads(at)))
    if leaf and at.segments:
        raise PathError(f"{at.path}: a value, and no settings")
    tree = stored_tree(at, [(kv.key, kv.value) for kv in (*first, *second)])
    if not isinstance(tree, dict):
        raise PathError(f"{at.path}: a list, and no settings")
    return tree


def _elsewhere(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What sources before etcd give, by its path, and which. Dicts of several sources are merged."""
    found: dict[str, str] = {}
    for source, values in sources.items():
        for path in _paths(values):
            found.setdefault(path, _SOURCES.get(source, source))
    return found


def _paths(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        segment = encode_name(str(name))
        if isinstance(value, dict):
            yield from (f"{segment}/{path}" for path in _paths(value))
        else:
            yield segment


def _sealed(model: type[M], at: Place, client: EtcdMiddleware) -> type[M]:
    """A subclass that reads etcd, and whose instances cannot be changed once they are made."""

    def refuse(self: Any, name: str, *value: Any) -> None:
        if _building.get() is None and not name.startswith("_"):
            raise TypeError(
                f"{model.__name__}.{name}: settings in force are never changed; write to {at.path} in etcd"
            )
        (super(made, self).__setattr__ if value else super(made, self).__delattr__)(name, *value)

    def reduce(self: Any, protocol: Any) -> Any:
        return _thawed, (model, self.__getstate__())

    def sources(cls: Any, settings_cls: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        declared = super(made, cls).settings_customise_sources(settings_cls, *args, **kwargs)
        if any(isinstance(each, EtcdSettingsSource) and each._path.strip("/") == name for each in declared):
            return tuple(declared)
        return (*declared, EtcdSettingsSource(settings_cls, at.path, client=client))

    name = "/".join(at.segments)
    namespace: dict[str, Any] = {
        "__module__": model.__module__,
        "__qualname__": model.__qualname__,
        "__doc__": model.__doc__,
        "__setattr__": refuse,
        "__delattr__": refuse,
        "__reduce_ex__": reduce,
    }
    if issubclass(model, BaseSettings):
        namespace["settings_customise_sources"] = classmethod(sources)
    made: type[M] = types.new_class(model.__name__, (model,), exec_body=lambda body: body.update(namespace))
    return made


def _thawed(model: type[M], state: Any) -> M:
    """Settings that were pickled, as an instance of the model itself."""
    made = model.__new__(model)
    made.__setstate__(state)
    return made
