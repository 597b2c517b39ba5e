"""Which numbers of a chapter come from records: read off its code, without running it.

A record is a JSON file in book/results. Its name follows every assignment, loop and call to the
values that are glued. A value counts as recorded if any part of it is.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

Records = frozenset[str]
NONE: Records = frozenset()
ANY = ".+"
# Statements that hold others.
BLOCKS = (ast.For, ast.If, ast.While, ast.With, ast.Try, ast.FunctionDef, ast.ClassDef)
CHANGING = {"append", "extend", "update", "add", "setdefault", "insert"}


class Value(NamedTuple):
    """What is known of a name: its records; of a dictionary, those of its keys, by pattern.

    `text` is a pattern of the strings that it may be, `uses` the names that a function looks up
    when it is called.
    """

    records: Records = NONE
    items: dict[str, Records] | None = None
    text: str = ANY
    uses: Records = NONE

    def joined(self, other: "Value") -> "Value":
        items = {**(self.items or {})}
        for key, records in (other.items or {}).items():
            items[key] = items.get(key, NONE) | records
        known = items if self.items is not None or other.items is not None else None
        return Value(self.records | other.records, known, ANY, self.uses | other.uses)

    @property
    def all(self) -> Records:
        """The records of the value and of all its items."""
        return self.records.union(*(self.items or {}).values())


class Glued(NamedTuple):
    """One call of glue: a pattern of its key, the records of the value, and what was drawn in it.

    A figure is drawn part by part: all that its cell uses from its first line on belongs to it.
    """

    key: str
    records: Records
    drawn: Records


class Trace:
    """Follows the code cells of one notebook in their order."""

    def __init__(self, results: Path):
        self.results = results
        self.names: dict[str, Value] = {}
        self.glued: list[Glued] = []
        self.used: list[Records] = []  # by each cell
        self.drawn: dict[str, Records] = {}  # used in this cell since a name was assigned
        self.decided = NONE  # by the tests of the blocks around

    def cell(self, code: str) -> Records:
        """Read a cell; the records that anything in it uses."""
        self.used.append(NONE)
        self.drawn = {}
        lines = ("" if s.lstrip().startswith(("%", "!")) else s for s in code.splitlines())
        with suppress(SyntaxError):
            self.block(ast.parse("\n".join(lines)).body)
        return self.used[-1]

    def of(self, key: str, *, figure: bool = False) -> Records:
        """The records of a glued value or figure."""
        fits = [g for g in self.glued if re.fullmatch(g.key, key)]
        closest = max((literal(g.key) for g in fits), default=0)
        fits = [g for g in fits if literal(g.key) == closest]
        return NONE.union(*(g.records | g.drawn if figure else g.records for g in fits))

    def use(self, records: Records) -> None:
        self.used[-1] |= records
        self.drawn = {name: before | records for name, before in self.drawn.items()}

    # Expressions.

    def records(self, node: ast.AST) -> Records:
        """The union over all names and file names in an expression."""
        found = set(self.files(node))
        for name in free_names(node):
            found |= self.lookup(name)
        return frozenset(found)

    def lookup(self, name: str, seen: Records = NONE) -> Records:
        value = self.names.get(name, Value())
        found = value.all
        for other in value.uses - seen - {name}:
            found |= self.lookup(other, seen | value.uses | {name})
        return found

    def files(self, node: ast.AST) -> Iterator[str]:
        """Records that an expression names: by the name of a file, or by a path with patterns."""
        for part in ast.walk(node):
            path = joined_path(part) or ""
            if not path.endswith(".json"):
                continue
            if "*" not in path:
                yield from (p.stem for p in self.results.rglob(Path(path).name))
            # A pattern says nothing without a fixed part: `*.json` may be in any folder.
            elif path.strip("*") != ".json":
                yield from (p.stem for p in self.results.rglob(path.removeprefix("results/")))

    def value(self, node: ast.AST) -> Value:
        match node:
            case ast.Name(id=name):
                return self.names.get(name, Value())
            case ast.Dict(keys=keys, values=values):
                whole = Value(items={})
                for key, item in zip(keys, values, strict=True):
                    part = self.value(item)
                    one = Value(items={self.pattern(key): part.all}) if key else part
                    whole = whole.joined(one)
                return whole
            case ast.DictComp(key=key, value=item, generators=loops):
                bound = {
                    n.id for each in loops for n in ast.walk(each.target) if isinstance(n, ast.Name)
                }
                records = self.records(node)
                hidden = {name: self.names.pop(name) for name in bound & self.names.keys()}
                pattern = self.pattern(key)
                self.names |= hidden
                return Value(items={pattern: records})
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self.value(left).joined(self.value(right))
            case ast.Subscript(value=base, slice=key):
                whole, pattern = self.value(base), self.pattern(key)
                if pattern in (whole.items or {}):
                    return Value(whole.items[pattern])
        return Value(self.records(node), text=self.pattern(node))

    def pattern(self, node: ast.AST) -> str:
        """A pattern of the texts that an expression may be."""
        match node:
            case ast.Constant(value=str() | int() as text):
                return re.escape(str(text))
            case ast.Name(id=name):
                return self.names.get(name, Value()).text
            case ast.FormattedValue(value=value):
                return self.pattern(value)
            case ast.JoinedStr(values=values):
                return "".join(map(self.pattern, values))
        return ANY

    # Statements.

    def statement(self, node: ast.stmt) -> None:
        if not isinstance(node, BLOCKS):
            self.use(self.records(node))
            for key, value in glue_calls(node):
                records = self.value(value).all | self.decided
                drawn = NONE.union(*(self.drawn.get(n, NONE) for n in free_names(value)))
                self.glued.append(Glued(self.pattern(key), records, drawn))
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self.bind(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.bind(target, value)
            case ast.AugAssign(target=target, value=value):
                self.add(target, self.value(value))
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=base, attr=attr), args=args)):
                if attr in CHANGING:
                    for each in args:
                        self.add(base, self.value(each))
            case ast.For(target=target, iter=iterable, body=body, orelse=after):
                self.use(self.records(iterable))
                for _ in self.turns(target, iterable):
                    self.block(body)
                self.block(after)
            case ast.If() | ast.While():
                self.use(self.records(node.test))
                self.either(node.test, node.body, node.orelse)
            case ast.With(items=items, body=body):
                for item in items:
                    self.use(self.records(item.context_expr))
                    if item.optional_vars is not None:
                        self.bind(item.optional_vars, item.context_expr)
                self.block(body)
            case ast.Try(body=body, handlers=handlers, orelse=after, finalbody=last):
                self.either(None, body, [s for h in handlers for s in h.body])
                self.block([*after, *last])
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                self.names[name] = Value(frozenset(self.files(node)), uses=free_names(node))
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                for alias in names:
                    self.names.pop((alias.asname or alias.name).split(".")[0], None)

    def block(self, body: Iterable[ast.stmt]) -> None:
        for node in body:
            self.statement(node)

    def either(self, test: ast.AST | None, first: list[ast.stmt], second: list[ast.stmt]) -> None:
        """What is known after one of two blocks, whichever ran."""
        before, outside = dict(self.names), self.decided
        self.decided |= self.records(test) if test else NONE
        self.block(first)
        one, self.names = self.names, before
        self.block(second)
        self.decided = outside
        for name, value in one.items():
            mine = self.names.get(name)
            self.names[name] = value if mine in (None, value) else mine.joined(value)

    def bind(self, target: ast.AST, value: ast.AST) -> None:
        """Assign an expression, part by part where both sides are tuples."""
        match target, value:
            case ast.Tuple(elts=to) | ast.List(elts=to), ast.Tuple(elts=of) | ast.List(elts=of):
                if len(to) == len(of):
                    for each, one in zip(to, [self.value(each) for each in of], strict=True):
                        self.put(each, one)
                    return
        self.put(target, self.value(value))

    def put(self, target: ast.AST, value: Value) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = value._replace(records=value.records | self.decided)
                self.drawn[name] = NONE
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                for each in elements:
                    self.put(each, Value(value.all))
            case ast.Starred(value=inner):
                self.put(inner, Value(value.all))
            case _:
                self.add(target, value)

    def add(self, target: ast.AST, value: Value) -> None:
        """Let a name have these records as well, or an item of it, or an attribute."""
        value = value._replace(records=value.records | self.decided)
        match target:
            case ast.Name(id=name):
                self.names[name] = self.names.get(name, Value()).joined(value)
            case ast.Subscript(value=ast.Name() as base, slice=key):
                self.add(base, Value(items={self.pattern(key): value.all}))
            case ast.Attribute(value=base) | ast.Subscript(value=base) | ast.Call(func=base):
                self.add(base, Value(value.all))

    def turns(self, target: ast.AST, iterable: ast.AST) -> Iterator[None]:
        """Bind what a loop binds: turn by turn where the items are known, else once for all."""
        match target, iterable:
            case ast.Tuple(elts=[ast.Name(id=key), rest]), ast.Call(
                func=ast.Attribute(value=base, attr="items"), args=[]
            ) if (whole := self.value(base)).items is not None:
                for pattern, records in whole.items.items():
                    self.names[key] = Value(text=pattern)
                    self.put(rest, Value(records | whole.records))
                    yield
            case _, ast.Tuple(elts=elements) | ast.List(elts=elements) if elements:
                for each in elements:
                    self.bind(target, each)
                    yield
            case _:
                self.put(target, Value(self.records(iterable)))
                yield


def literal(pattern: str) -> int:
    """How many characters of a pattern are fixed."""
    return len(pattern.replace(ANY, ""))


def glue_calls(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Keys and values of the calls of glue in a statement."""
    for part in ast.walk(node):
        match part:
            case ast.Call(func=ast.Name(id="glue"), args=[key, value, *_]):
                yield key, value


def joined_path(node: ast.AST) -> str | None:
    """The path of `Path("a") / "b"` and of `Path("a").glob("b")`, with * for what is not known."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(v.value) if isinstance(v, ast.Constant) else "*" for v in values)
        case ast.Call(func=ast.Name(id="Path"), args=[first]):
            return joined_path(first)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            one, two = joined_path(left), joined_path(right)
            return f"{one}/{two}" if one and two else None
        case ast.Call(func=ast.Attribute(value=base, attr="glob" | "rglob"), args=[pattern]):
            one, two = joined_path(base), joined_path(pattern)
            return f"{one}/{two}" if one and two else None
    return None


def free_names(node: ast.AST) -> Records:
    """Names that a piece of code looks up, without those that it binds for itself."""
    bound, loaded = set(), set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load):
            loaded.add(part.id)
        elif isinstance(part, ast.comprehension):
            bound |= {n.id for n in ast.walk(part.target) if isinstance(n, ast.Name)}
        elif isinstance(part, ast.Lambda | ast.FunctionDef):
            a = part.args
            given = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
            bound |= {each.arg for each in given}
            if isinstance(part, ast.FunctionDef):
                bound |= {
                    n.id
                    for n in ast.walk(part)
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                }
    return frozenset(loaded - bound)
