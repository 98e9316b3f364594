"""What the repaired lines of b3j0f import from here: see `link_kv._core.configuration.b3j0f_revived`."""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple

# Numbers that no bytecode has: the rewriting finds nothing to rewrite.
opmap = dict.fromkeys(
    ("STORE_GLOBAL", "LOAD_GLOBAL", "LOAD_CONST", "LOAD_ATTR", "BUILD_TUPLE", "JUMP_FORWARD"), -1
)
HAVE_ARGUMENT = 256
EXTENDED_ARG = -1


class ParserError(Exception):
    """What b3j0f.conf raises for a value that it cannot parse, once the `parser` module's."""


class ArgSpec(NamedTuple):
    """The arguments of a function, as far as Python 2 had them."""

    args: list[str]
    varargs: str | None
    keywords: str | None
    defaults: tuple[Any, ...] | None


def getargspec(function: Callable[..., Any]) -> ArgSpec:
    """What `inspect.getargspec` gave until Python 3.10.

    Annotations and keyword-only arguments are no error here: a class that has them can be configured.
    """
    return ArgSpec(*inspect.getfullargspec(function)[:4])


def apply_pointcut(
    self: Any, target: Any, function: Callable[..., Any] | None = None, ctx: Any = None
) -> Callable[..., Any]:
    """`Joinpoint.apply_pointcut`: puts an interception with the signature of `target` in its place.

    b3j0f swaps the code of two functions, so the new code must bring its joinpoint along as a constant.
    Each call runs on a copy of the joinpoint: upstream keeps the arguments on the one that all calls share,
    which hands them to whichever thread comes next.
    """
    from b3j0f.aop.joinpoint import core

    original = core._get_function(target) if function is None else function
    if not hasattr(original, "__code__"):
        original = _python_function(original)

    def run(
        positional: tuple[Any, ...], named: dict[str, Any], rest: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        call = copy.copy(self)
        if rest:
            call.args, call.kwargs = (*positional, *named.values(), *rest), keywords
        else:
            call.args, call.kwargs = positional, {**named, **keywords}
        return call.start()

    interception = types.FunctionType(
        _interception_code(original.__code__, run),
        original.__globals__,
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    interception.__kwdefaults__ = original.__kwdefaults__
    for name in functools.WRAPPER_ASSIGNMENTS:
        if hasattr(original, name):
            setattr(interception, name, getattr(original, name))
    interception.__dict__.update(original.__dict__)
    self._interception, self.target, self.ctx = core._apply_interception(
        target=target, interception_fn=interception, ctx=ctx
    )
    return self._interception  # type: ignore[no-any-return]


def _python_function(builtin: Callable[..., Any]) -> Any:
    """A Python function that looks like a builtin one; only its code is used, for its signature."""
    assigned = [name for name in ("__doc__", "__module__", "__name__") if hasattr(builtin, name)]
    updated = [name for name in ("__dict__",) if hasattr(builtin, name)]

    @functools.wraps(builtin, assigned=assigned, updated=updated)
    def function(*args: Any, **kwargs: Any) -> None: ...

    return function


def _interception_code(code: types.CodeType, run: Callable[..., Any]) -> types.CodeType:
    """Code that takes the arguments of `code`, calls `run` with them, and fits where `code` fitted."""
    names = code.co_varnames
    positional = names[: code.co_posonlyargcount]
    named = names[code.co_posonlyargcount : code.co_argcount]
    end = code.co_argcount + code.co_kwonlyargcount
    keywords = names[code.co_argcount : end]
    parameters = list(positional) + ["/"] * bool(positional) + list(named)
    rest = "()"
    if code.co_flags & inspect.CO_VARARGS:
        rest = names[end]
        end += 1
        parameters.append(f"*{rest}")
    elif keywords:
        parameters.append("*")
    parameters += keywords
    entries = [f"{name!r}: {name}" for name in keywords]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        parameters.append(f"**{names[end]}")
        entries.append(f"**{names[end]}")
    source = (
        f"def interception({', '.join(parameters)}):\n"
        f"    {_RUN} = {_RUN!r}\n"
        f"    return {_RUN}(({''.join(f'{name}, ' for name in positional)}), "
        f"{{{', '.join(f'{name!r}: {name}' for name in named)}}}, {rest}, {{{', '.join(entries)}}})\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(source, code.co_filename, "exec"), scope)  # the names are those of the function's own code
    made: types.CodeType = scope["interception"].__code__
    return made.replace(
        co_name=code.co_name,
        co_freevars=code.co_freevars,
        co_consts=tuple(run if constant == _RUN else constant for constant in made.co_consts),
    )


_RUN = "_link_kv_run"
