"""From `handlers = ["module:Class"]` to handlers, or to everything that is wrong with them."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from eventkit._handler import AnyHandler, BatchHandler, Handler
from eventkit.cli._report import UserCodeError, summary, users_traceback
from eventkit.errors import ConfigurationError

__all__ = ["load_handlers"]

NAMED = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def load_handlers(names: Sequence[str], config: Path) -> list[AnyHandler]:
    """Import and make each handler; the folder of the configuration file is where modules are found first.

    Raises UserCodeError with every problem, and the traceback of what the user's code raised.
    """
    folder = str(config.absolute().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not names:
        raise ConfigurationError(f'{config}: handlers: is missing; write for example handlers = ["handlers:MyHandler"]')
    handlers: list[AnyHandler] = []
    problems: list[str] = []
    tracebacks: list[str] = []
    for name in names:
        try:
            handlers.append(_made(_found(name, folder)))
        except _UserCodeRaisedError as exc:
            tracebacks.append(users_traceback(exc.raised))
            problems.append(f"{config}: handlers: {name}: {exc}: {summary(exc.raised)}")
        except ConfigurationError as exc:
            problems.extend(f"{config}: handlers: {name}: {problem}" for problem in exc.problems)
    if problems:
        raise UserCodeError(*problems, tracebacks=tuple(dict.fromkeys(tracebacks)))
    return handlers


class _UserCodeRaisedError(Exception):
    """Importing a module or making a handler raised `raised`."""

    def __init__(self, what: str, raised: BaseException) -> None:
        super().__init__(what)
        self.raised = raised


def _found(named: str, folder: str) -> object:
    parts = NAMED.fullmatch(named)
    if parts is None:
        example = ":".join(named.rsplit(".", 1)) if ":" not in named and "." in named else "handlers:MyHandler"
        raise ConfigurationError(f'is not module:Class; write for example "{example}"')
    module, name = _imported(parts["module"], folder), parts["name"]
    if not hasattr(module, name):
        raise ConfigurationError(_not_in(module, name))
    return getattr(module, name)


def _imported(name: str, folder: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise _UserCodeRaisedError("cannot be imported", exc) from exc
        near = get_close_matches(exc.name, [path.stem for path in Path(folder).glob("*.py")], n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; it is looked up in {folder}, then among what is installed"
        raise ConfigurationError(f"no module named {exc.name}{hint}") from exc
    except (Exception, SystemExit) as exc:
        raise _UserCodeRaisedError("cannot be imported", exc) from exc


def _not_in(module: ModuleType, name: str) -> str:
    handlers = [other for other, value in vars(module).items() if _is_handler_class(value)]
    near = get_close_matches(name, handlers, n=1)
    if near:
        return f"module {module.__name__} has no {name}; did you mean {near[0]}?"
    return f"module {module.__name__} has no {name}; handlers in it: {', '.join(handlers) or 'none'}"


def _is_handler_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Handler | BatchHandler) and not inspect.isabstract(value)


def _made(found: object) -> AnyHandler:
    """A handler of the class that was found; one made by the user's module is taken as it is."""
    if isinstance(found, Handler | BatchHandler):
        return found
    if not (isinstance(found, type) and issubclass(found, Handler | BatchHandler)):
        kind = f"class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise ConfigurationError(f"is {kind}, no subclass of eventkit's Handler or BatchHandler")
    if inspect.isabstract(found):
        raise ConfigurationError(f"has no method {', '.join(sorted(found.__abstractmethods__))}")
    needed = [
        name
        for name, parameter in inspect.signature(found).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ConfigurationError(
            f"needs arguments ({', '.join(needed)}), and is made without any: open what it needs in its lifespan, "
            "or name an instance that your module makes"
        )
    try:
        return found()
    except Exception as exc:
        raise _UserCodeRaisedError("cannot be made", exc) from exc
