"""Small breaks of a module's source, of the kind that a slip of the pen leaves behind.

Each operator looks at one node of the syntax tree and gives what could stand there instead. Left alone is what tests
rightly ignore: annotations, decorators, docstrings, the wording of errors (all of a `raise`), text in f-strings.
"""

from __future__ import annotations

import ast
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

# How often each kind is drawn, against the others: the first are the breaks that tests of ours have overlooked.
WEIGHTS = {
    "half of a condition dropped": 3.0,
    "call dropped": 3.0,
    "update dropped": 3.0,
    "early return dropped": 3.0,
    "condition forced": 2.0,
    "not dropped": 2.0,
    "filter dropped": 2.0,
    "element dropped": 1.0,
    "argument dropped": 1.0,
    "jump dropped": 1.0,
    "operand dropped": 1.0,
    "comparison moved": 1.0,
    "constant moved": 0.7,
    "function swapped": 1.0,
}
_NEIGHBOURS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_SWAPS = {"any": "all", "all": "any", "min": "max", "max": "min"}
_UNSEEN_KEYWORDS = {"strict"}  # zip(strict=True) states what holds anyway
_JUMPS = (ast.Continue, ast.Break)


@dataclass(frozen=True)
class Mutant:
    """One break: `before`, found at `start:end` of the module's text, becomes `after`."""

    kind: str
    module: str
    function: str
    before: str
    after: str
    start: int
    end: int
    line: int
    lines: range
    at_import: bool
    nth: int = 0

    @property
    def key(self) -> str:
        """What stays the same when other code is edited and when the module moves to another folder."""
        where = f"{self.module.rpartition('.')[2]}.{self.function}".rstrip(".")
        nth = f" #{self.nth}" if self.nth else ""
        return f"{where}: {' '.join(self.before.split())} -> {' '.join(self.after.split())}{nth}"

    def apply(self, source: str) -> str:
        return source[: self.start] + self.after + source[self.end :]


def find_mutants(source: str, module: str) -> list[Mutant]:
    """All breaks of the module, in the order of its text. Only those whose result compiles."""
    finder = _Finder(source, module)
    finder.walk(ast.parse(source), (), None)
    counts: dict[str, int] = {}
    found = []
    for mutant in sorted(finder.found, key=lambda m: (m.start, m.end)):
        nth = counts[mutant.key] = counts.get(mutant.key, -1) + 1
        found.append(Mutant(**{**mutant.__dict__, "nth": nth}))
    return found


def sample(mutants: list[Mutant], count: int, seed: str) -> list[Mutant]:
    """`count` of the mutants, by a draw that depends on each one's key alone.

    So the sample of an edited module differs from the earlier one only where its code does.
    """

    def rank(mutant: Mutant) -> float:
        digest = hashlib.sha256(f"{seed} {mutant.key}".encode()).digest()
        return -math.log((int.from_bytes(digest[:7], "big") + 1) / 2**56) / WEIGHTS[mutant.kind]

    return sorted(sorted(mutants, key=rank)[:count], key=lambda m: (m.start, m.end))


class _Finder:
    def __init__(self, source: str, module: str) -> None:
        self.source = source
        self.module = module
        self.found: list[Mutant] = []
        self._line_starts = [0]
        for line in source.encode().splitlines(keepends=True):
            self._line_starts.append(self._line_starts[-1] + len(line))
        self._bytes = source.encode()

    def walk(self, node: ast.AST, scope: tuple[str, ...], statement: ast.stmt | None) -> None:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        statement = node if isinstance(node, ast.stmt) else statement
        if statement is not None:
            for kind, target, after in _breaks(node, self.text):
                self._add(kind, target, after, scope, statement)
        inner = scope
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = (*scope, node.name if isinstance(node, ast.ClassDef) else f"{node.name}()")
        for field, child in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_comment", "bases", "keywords") and not (
                field == "keywords" and isinstance(node, ast.Call)
            ):
                continue
            children = child if isinstance(child, list) else [child]
            for each in children:
                if isinstance(each, ast.AST):
                    self.walk(each, inner if field == "body" else scope, statement)

    def text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._bytes[start:end].decode()

    def _span(self, node: ast.AST) -> tuple[int, int]:
        start = self._line_starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = self._line_starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return start, end

    def _add(self, kind: str, node: ast.AST, after: str, scope: tuple[str, ...], statement: ast.stmt) -> None:
        start, end = (len(self._bytes[:i].decode()) for i in self._span(node))
        function = ".".join(part.removesuffix("()") for part in scope)
        lines = range(node.lineno, node.end_lineno + 1)  # type: ignore[attr-defined]
        mutant = Mutant(
            kind, self.module, function, self.source[start:end], after, start, end, node.lineno,  # type: ignore[attr-defined]
            range(min(lines.start, statement.lineno), lines.stop), not any(p.endswith("()") for p in scope),
        )  # fmt: skip
        try:
            compile(mutant.apply(self.source), "", "exec")
        except SyntaxError:
            return
        self.found.append(mutant)


def _breaks(node: ast.AST, text) -> Iterator[tuple[str, ast.AST, str]]:  # type: ignore[no-untyped-def]
    """(kind, the node that is replaced, what stands there instead)"""
    match node:
        case ast.BoolOp(values=values):
            word = " and " if isinstance(node.op, ast.And) else " or "
            for dropped in values:
                rest = word.join(f"({text(v)})" for v in values if v is not dropped)
                yield "half of a condition dropped", node, f"({rest})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not dropped", node, f"({text(operand)})"
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            yield "comparison moved", node, f"({text(left)} {_NEIGHBOURS[type(op)]} {text(right)})"
        case ast.If(test=test) | ast.IfExp(test=test):
            yield "condition forced", test, "True"
            yield "condition forced", test, "False"
        case ast.comprehension(ifs=ifs):
            for each in ifs:
                yield "filter dropped", each, "True"
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
            yield "call dropped", node, "pass"
        case ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Delete():
            yield "update dropped", node, "pass"
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            yield "operand dropped", node, f"({text(left)})"
            yield "operand dropped", node, f"({text(right)})"
        case ast.BinOp(op=ast.Sub() | ast.BitOr() | ast.BitAnd() | ast.FloorDiv(), left=left):
            yield "operand dropped", node, f"({text(left)})"
        case ast.Constant(value=bool() as value):
            yield "constant moved", node, str(not value)
        case ast.Constant(value=int() as value):
            yield "constant moved", node, str(value + 1)
        case ast.Call(func=ast.Name(id=name)) if name in _SWAPS:
            yield "function swapped", node.func, _SWAPS[name]
    yield from _dropped_parts(node, text)


def _dropped_parts(node: ast.AST, text) -> Iterator[tuple[str, ast.AST, str]]:  # type: ignore[no-untyped-def]
    match node:
        case ast.Call(keywords=keywords):
            arguments = [*node.args, *keywords]
            for dropped in keywords:
                if dropped.arg and dropped.arg not in _UNSEEN_KEYWORDS:
                    rest = ", ".join(text(a) for a in arguments if a is not dropped)
                    yield "argument dropped", node, f"{text(node.func)}({rest})"
        case ast.List(elts=elements) if len(elements) > 1:
            for dropped in elements:
                yield "element dropped", node, f"[{', '.join(text(e) for e in elements if e is not dropped)}]"
        case ast.Set(elts=elements) if len(elements) > 1:
            for dropped in elements:
                yield "element dropped", node, f"{{{', '.join(text(e) for e in elements if e is not dropped)}}}"
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[ast.Tuple(elts=elements)]):
            for dropped in elements:
                rest = "".join(f"{text(e)}, " for e in elements if e is not dropped)
                yield "element dropped", node.comparators[0], f"({rest})"
        case ast.Dict(keys=keys, values=values) if len(keys) > 1:
            pairs = [(f"{text(k)}: " if k else "**") + text(v) for k, v in zip(keys, values, strict=True)]
            for i in range(len(pairs)):
                yield "element dropped", node, f"{{{', '.join(p for j, p in enumerate(pairs) if j != i)}}}"
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        if not isinstance(block, list) or isinstance(node, ast.Module):
            continue
        for each in block:
            if isinstance(each, _JUMPS):
                yield "jump dropped", each, "pass"
            elif isinstance(each, ast.Return) and not isinstance(node, ast.FunctionDef):
                yield "early return dropped", each, "pass"
