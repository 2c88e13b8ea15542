"""Every message that the package can raise, read from its source: what `docs/errors.md` has to list.

A message is what stands first in the making of an exception, in :func:`sentences`, in the end of a wait
(``_done``), or in a decision of the ledger (``Stop``, ``Stale``). What is filled in when it is raised is
written as `…`. Of a text that comes from elsewhere there is nothing to see here: the gateway's own words, for
example; but what a kind of error means, which is said before them, is read from the classes themselves.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "airflow_video_provider"

#: Makers of exceptions whose name does not say so, with the position of the text among their arguments.
MAKERS = {
    "sentences": 0,
    "kind": 0,
    "Stop": 0,
    "Stale": 0,
    "Setback": 1,
    "_done": 1,
    "_nothing_paid": 0,
    "_so_far": 0,
    "_told": 0,
    "_unreadable": 0,
}
#: Raised to the interpreter or within one function, and never read by a user.
SILENT = {"AttributeError", "NotImplementedError", "StopIteration", "KeyError", "FileNotFoundError"}
#: The sandbox is a gateway: its answers are in docs/sandbox.md. The ledger's command line explains itself.
LEFT_OUT = ("sandbox/", "ledger/__main__.py")
#: How far a text is followed through functions and names.
DEPTH = 5

Function = ast.FunctionDef | ast.AsyncFunctionDef


def messages() -> dict[str, str]:
    """Each message, and the file that has it."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(LEFT_OUT):
            for text in _Module(ast.parse(path.read_text(encoding="utf-8"))).messages():
                skeleton = " ".join(re.sub("…{2,}", "…", text).split())
                if re.search(r"\w{2}", skeleton):
                    found.setdefault(skeleton, name)
    return found


class _Module:
    def __init__(self, tree: ast.Module) -> None:
        self._all = [node for node in ast.walk(tree) if isinstance(node, Function)]
        self._functions = {node.name: node for node in self._all}

    def messages(self) -> Iterator[str]:
        for function in self._all:
            names = _assigned(function)
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and (position := _position(node)) is not None:
                    yield from self._texts(node.args[position], names, DEPTH)

    def _texts(self, node: ast.expr | None, names: _Names, depth: int) -> list[str]:
        """The texts that an expression can be; `…` for what is not in the source."""
        if node is None or depth == 0:
            return ["…"]
        match node:
            case ast.Constant(value=str() as text):
                return [text]
            case ast.JoinedStr(values=parts):
                return self._joined(parts, names, depth)
            case ast.FormattedValue(value=value, conversion=-1):
                return self._texts(value, names, depth - 1)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return self._joined([left, right], names, depth)
            case ast.IfExp(body=first, orelse=second) | ast.BoolOp(values=[first, second]):
                return [*self._texts(first, names, depth), *self._texts(second, names, depth)]
            case ast.Tuple(elts=[first, *_]) | ast.Subscript(value=first):
                return self._texts(first, names, depth)
            # " ".join(text.split())
            case ast.Call(func=ast.Attribute(attr="join"), args=[ast.Call(func=ast.Attribute(value=text))]):
                return self._texts(text, names, depth)
            case ast.Call(func=ast.Name(id="sentences"), args=[first, *_]):
                return self._texts(first, names, depth)
            case ast.Call(func=ast.Name(id=name)) if name in self._functions:
                return self._returned(self._functions[name], depth - 1)
            case ast.Name(id=name) if name in names:
                return [text for value in names[name] for text in self._texts(value, names, depth - 1)]
        return ["…"]

    def _joined(self, parts: Sequence[ast.expr], names: _Names, depth: int) -> list[str]:
        every = product(*(self._texts(part, names, depth) for part in parts))
        return list(dict.fromkeys("".join(each) for each in every))

    def _returned(self, function: Function, depth: int) -> list[str]:
        names = _assigned(function)
        values = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
        return [text for value in values for text in self._texts(value, names, depth)]


_Names = dict[str, list[ast.expr]]


def _assigned(function: Function) -> _Names:
    """What each name of a function may be; parameters are filled in by callers."""
    names: _Names = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    names.setdefault(target.id, []).append(node.value)
    return names


def _position(call: ast.Call) -> int | None:
    """Where in a call the text of a message stands; None where it makes none."""
    names = {node.id for node in ast.walk(call.func) if isinstance(node, ast.Name)}
    if isinstance(call.func, ast.Attribute):
        names = {call.func.attr}
    for name in names:
        position = MAKERS.get(name, 0 if _is_exception(name) else None)
        if name == "OSError" and len(call.args) == 2:
            position = 1
        if position is not None and len(call.args) > position:
            return position
    return None


def _is_exception(name: str) -> bool:
    if name in SILENT or not name[:1].isupper():
        return False
    return bool(
        re.search(r"(Error|Exception|Timeout|Failed|Unreachable|NotReady|Refused|Broken)$", name)
    ) or (name in _MEDIA)


_MEDIA = frozenset(
    node.name
    for node in ast.walk(ast.parse((PACKAGE / "media" / "errors.py").read_text(encoding="utf-8")))
    if isinstance(node, ast.ClassDef)
) | {"LedgerUnreadable", "NetworkFault"}


def meanings() -> set[str]:
    """What is said before a gateway's own words."""
    from airflow_video_provider.gateway import error_tree
    from airflow_video_provider.gateway.missing import Missing

    kinds = [getattr(error_tree, name) for name in error_tree.__all__ if name != "ErrorKind"]
    errors = [kind("") for kind in kinds]
    errors += [error_tree.NotFoundError("", missing=missing) for missing in Missing]
    errors += [error_tree.ServerError("model_not_found")]
    return {error.meaning for error in errors if error.meaning}
