"""Commands: functions of groups of options, callable with any of these options by name."""

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, NamedTuple

from cpic._renamed import renamed, warn_old
from cpic.options._groups import Group
from cpic.options._kinds import docs_of, fitted, kinds_of
from cpic.options._names import check_name

REQUIRED = Parameter.empty


class Option(NamedTuple):
    """One option of a command.

    Attributes:
        kind: Its type and range.
        default: Its default value; `REQUIRED` if it must be given.
        doc: Its description.
        group: Name of its group; empty for an option of the command itself.
    """

    kind: Any
    default: Any
    doc: str
    group: str


class Command:
    """The options of a function of groups of options.

    Args:
        function: Its parameters are groups, whose defaults are those of the command, and options
            of its own.
        summary: One line.
        old: New names of options by their old names.

    Attributes:
        options: By flat name.
        groups: By name, with the defaults of the command.
        places: Options that may be given by position.
    """

    def __init__(self, function: Callable[..., Any], summary: str, old: Mapping[str, str]):
        self.function, self.name, self.summary = function, function.__name__, summary
        self.old = old
        parameters = inspect.signature(function).parameters
        self.groups = {n: p.default for n, p in parameters.items() if isinstance(p.default, Group)}
        self.options: dict[str, Option] = {}
        for name, one in parameters.items():
            if name not in self.groups:
                self._add(function, {name: one.default}, "")
        for name, group in self.groups.items():
            self._add(type(group), {n: getattr(group, n) for n in kinds_of(type(group))}, name)
        by_place = [n for n, p in parameters.items() if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
        self.places = [name for name in by_place if name not in self.groups]

    def _add(self, owner: Callable[..., Any], defaults: Mapping[str, Any], group: str) -> None:
        kinds, docs = kinds_of(owner), docs_of(owner)
        for name, default in defaults.items():
            self.options[name] = Option(kinds[name], default, docs[name], group)

    @property
    def kinds(self) -> dict[str, Any]:
        """Kinds of all options by flat name; the name of a group maps to the kinds in it."""
        flat = {name: one.kind for name, one in self.options.items()}
        return {**flat, **{name: kinds_of(type(group)) for name, group in self.groups.items()}}

    @property
    def signature(self) -> inspect.Signature:
        """All options by flat name, and the groups as objects."""
        found = [
            Parameter(
                name,
                Parameter.POSITIONAL_OR_KEYWORD if name in self.places else Parameter.KEYWORD_ONLY,
                default=one.default,
                annotation=one.kind,
            )
            for name, one in self.options.items()
        ]
        for name, group in self.groups.items():
            kind = type(group) | None
            found.append(Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind))
        returned = inspect.signature(self.function).return_annotation
        return inspect.Signature(found, return_annotation=returned)

    @property
    def doc(self) -> str:
        """The docstring of the function, with all options under `Args`."""
        texts = {name: one.doc for name, one in self.options.items()}
        for name, group in self.groups.items():
            texts[name] = f"All of these at once, as a `cpic.options.{type(group).__name__}`."
        indent: dict[str, Any] = {"initial_indent": " " * 4, "subsequent_indent": " " * 8}
        indent["break_on_hyphens"] = False
        lines = [textwrap.fill(f"{name}: {text}", 98, **indent) for name, text in texts.items()]
        head, returns, tail = (inspect.getdoc(self.function) or "").partition("\n\nReturns:\n")
        head = head.partition("\n\nArgs:\n")[0]
        return "\n".join([f"{head}\n\nArgs:", *lines]) + returns + tail

    def flat(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Map options to flat names; a group given as a mapping is merged in, an object is kept.

        Raises:
            ValueError: If a name is unknown or given twice.
        """
        found: dict[str, Any] = {}
        for key, value in given.items():
            if isinstance(value, Group):
                found[key] = value
                continue
            inner = {key: value}
            if key in self.groups:
                section = fitted(dict[str, Any] | None, value, name=key, where=where) or {}
                inner = {f"{key}.{name}": one for name, one in section.items()}
            for name, one in inner.items():
                name = self.known(name, where)
                if name in found:
                    raise ValueError(f"{where} has {name!r} twice, once by its group; leave one.")
                found[name] = one
        return found

    def known(self, name: str, where: str) -> str:
        """The flat name of an option, given by this name, by group and name, or by an old name.

        Raises:
            ValueError: If there is none.
        """
        group, dot, inner = name.partition(".")
        if dot and group in self.groups:
            check_name(inner, self.kinds[group], where=f"{where}, {group}")
            return inner
        if name in self.old:
            warn_old(f"{self.name}: {name!r} is now {self.old[name]!r}; the old name")
        name = self.old.get(name, name)
        check_name(name, self.options, where=where)
        return name

    def fitted(self, name: str, value: Any, *, where: str = "") -> Any:
        """One option as a plain value.

        Raises:
            ValueError: If the value is invalid; the message begins with `where`.
        """
        group = self.options[name].group
        of = type(self.groups[group]) if group else self.function
        return fitted(self.options[name].kind, value, name=name, where=where, of=of)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments to call the function with.

        Args:
            given: Options by flat name, and groups as objects or mappings; an option given by name
                takes precedence over the one in an object.

        Raises:
            ValueError: If an option is unknown or invalid.
        """
        given = self.flat(given, self.name)
        own = [name for name, one in self.options.items() if not one.group]
        found = {n: self.fitted(n, given.get(n, self.options[n].default)) for n in own}
        for name, default in self.groups.items():
            group = fitted(type(default), given.get(name) or default, name=name)
            changes = {key: given[key] for key in kinds_of(type(group)) if key in given}
            # Null by default means the default of the command.
            unsaid = [one.name for one in dataclasses.fields(default) if one.default is None]
            group = dataclasses.replace(group, **changes)
            found[name] = group.completed(**{key: getattr(default, key) for key in unsaid})
        return found


def command(summary: str, **old: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn a function of groups of options into a command, which takes all of them by name.

    Args:
        summary: One-line description.
        **old: New names of options by their old names.

    Returns:
        A decorator; the decorated function has its `Command` as the attribute `command`.

    Example:
        >>> from cpic.options import Optimization
        >>> @command("show the step size")
        ... def show(optimization: Optimization = Optimization(lr=0.1)):
        ...     return optimization.lr
        >>> show(), show(lr=1), show(optimization=Optimization(lr=2)), show(optimization={"lr": 3})
        (0.1, 1.0, 2.0, 3.0)
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        made = Command(function, summary, old)

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            return function(**made.arguments(signature.bind(*args, **given).arguments))

        signature = made.signature
        vars(call).update(command=made, __signature__=signature)
        call.__doc__ = made.doc
        return renamed(**old)(call)

    return decorate
