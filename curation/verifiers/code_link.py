"""What the process of an answer and the process of its tests say to each other (see code_sandbox.py): calls go over a
pipe as JSON, plain data come back as plain data, everything else as a handle on an object of the other side. Standard
library alone, and no import of this package."""

from __future__ import annotations

import builtins
import json
import operator
import os
from typing import Any

MAX_LINE = 32 << 20  # bytes of one message between the two
OUTCOME_CHARS = 300


class Unsendable(Exception):
    """A value that does not go over the pipe."""


class Closed(Exception):
    """The other process ended, or said what is no message."""


class Handle:
    """An object of the other process: called, read, iterated and indexed there; compared only with its like.

    What is plain data on the other side arrives as plain data. Comparisons and arithmetic with plain data are not
    forwarded, since the other side could answer them as it likes."""

    def __init__(self, link: Link, number: int):
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def _ask(self, what: str, *arguments: Any) -> Any:
        link: Link = object.__getattribute__(self, "_link")
        return link.request(what, object.__getattribute__(self, "_number"), list(arguments))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._ask("call", list(arguments), named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("put", key, value)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __iter__(self) -> Any:
        iterator = self._ask("iterate")
        while True:
            found = iterator._ask("next")
            if not found:
                return
            yield found[0]

    def __len__(self) -> int:
        return int(self._ask("length"))

    def __bool__(self) -> bool:
        return bool(self._ask("truth"))

    def __str__(self) -> str:
        return str(self._ask("text", False))

    def __repr__(self) -> str:
        return str(self._ask("text", True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and bool(self._ask("equal", other))

    def __hash__(self) -> int:
        return int(object.__getattribute__(self, "_number"))

    def __instancecheck__(self, other: object) -> bool:
        return isinstance(other, Handle) and bool(self._ask("instance", other))


class Link:
    """Requests and replies over two pipes, one JSON object a line. Both sides may ask while they are being asked.

    Each side may use the objects that the other one passed to it. Of the tests' side it may read and set public
    attributes of instances of classes that the tests define, and no others (a generator's frame leads to everything);
    the answer's side is `trusting`: it has nothing to hide."""

    def __init__(self, source: int, target: int, *, trusting: bool):
        self.source = os.fdopen(source, "rb", buffering=1 << 16)
        self.target = os.fdopen(target, "wb", buffering=0)
        self.trusting = trusting
        self.objects: list[Any] = []
        self.exceptions: dict[str, type[BaseException]] = {}

    def request(self, what: str, number: int, arguments: list[Any]) -> Any:
        self._send({"ask": what, "of": number, "with": self._encode(arguments)})
        message = self._receive()
        while "ask" in message:
            self._answer(message)
            message = self._receive()
        if "raised" in message:
            raise self._exception(message)
        if what == "call":
            _update(arguments[0], self._decode(message["after"]))
        return self._decode(message["value"])

    def serve(self) -> None:
        """Answer until the other side closes."""
        while True:
            try:
                message = self._receive()
            except Closed:
                return
            self._answer(message)

    def _answer(self, message: dict[str, Any]) -> None:
        reply: dict[str, Any]
        try:
            arguments = self._decode(message["with"])
            value = self._do(str(message["ask"]), int(message["of"]), arguments)
            reply = {"value": self._encode(value)}
            if message["ask"] == "call":
                reply["after"] = self._encode(arguments[0])
        except (Closed, MemoryError):
            raise
        except BaseException as error:
            names = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, BaseException)]
            reply = {"raised": names, "text": text_of(error)}
        self._send(reply)

    def _do(self, what: str, number: int, arguments: list[Any]) -> Any:
        subject = self.objects[number]
        if what in ("get", "set") and not self.trusting and not _is_open(subject, arguments[0]):
            raise AttributeError(arguments[0])
        if what == "call":
            return subject(*arguments[0], **arguments[1])
        if what == "get":
            return getattr(subject, arguments[0])
        if what == "set":
            return setattr(subject, arguments[0], arguments[1])
        if what == "iterate":
            return _Iterator(iter(subject))
        if what == "next":
            return subject.following()
        if what == "instance":
            return isinstance(arguments[0], subject)
        if what == "equal":
            return bool(subject == arguments[0])
        if what == "put":
            return operator.setitem(subject, arguments[0], arguments[1])
        simple = {"length": len, "truth": bool}
        if what in simple:
            return simple[what](subject)
        return (repr if arguments[0] else str)(subject) if what == "text" else subject[arguments[0]]

    def _exception(self, message: dict[str, Any]) -> BaseException:
        """The exception that the other side raised: a built-in one, or one of the same name below it."""
        names = [str(name) for name in message["raised"]]
        return self.exception_class(names)(str(message["text"]))

    def exception_class(self, names: list[str]) -> type[BaseException]:
        name = names[0] if names else "Exception"
        if name in _ERRORS:
            return _ERRORS[name]
        if name not in self.exceptions:
            base = next((_ERRORS[item] for item in names if item in _ERRORS), Exception)
            self.exceptions[name] = type(name, (base,), {})
        return self.exceptions[name]

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        if len(data) > MAX_LINE:
            raise Unsendable(f"a message of {len(data)} bytes")
        view = memoryview(data)
        while view:
            view = view[self.target.write(view) :]

    def _receive(self) -> dict[str, Any]:
        line = self.source.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise Closed("the answer's process ended")
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError) as error:
            raise Closed("the answer's process wrote to the pipe of the tests") from error

    def _encode(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is float or kind is str:
            return value
        if kind is list:
            return [self._encode(item) for item in value]
        if isinstance(value, Handle):
            return {"t": "yours", "v": object.__getattribute__(value, "_number")}
        if isinstance(value, type) and _TYPES.get(value.__name__) is value:
            return {"t": "type", "v": [value.__name__]}
        for tag, accepted, parts in _CODED:
            if kind is accepted or (isinstance(value, accepted) and not isinstance(value, type)):
                return {"t": tag, "v": [self._encode(item) for item in parts(value)]}
        for plain in (bool, int, float, str, list):
            if isinstance(value, plain):  # a subclass: the plain value inside, whatever it overrides
                return self._encode(_PLAIN[plain](value))
        return {"t": "mine", "v": self._number(value)} | _kind_of_exception(value)

    def _number(self, value: Any) -> int:
        for number, known in enumerate(self.objects):
            if known is value:
                return number
        self.objects.append(value)
        return len(self.objects) - 1

    def _decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value["t"] == "yours":
            return self.objects[value["v"]]
        if value["t"] == "mine":
            return self.exception_class(value["e"]) if "e" in value else Handle(self, int(value["v"]))
        return _MAKE[value["t"]]([self._decode(item) for item in value["v"]])


class _Iterator:
    """An iterator that gives [item] or []."""

    def __init__(self, source: Any):
        self.source = source

    def following(self) -> list[Any]:
        for item in self.source:
            return [item]
        return []


def _kind_of_exception(value: Any) -> dict[str, list[str]]:
    if isinstance(value, type) and issubclass(value, BaseException):
        return {"e": [kind.__name__ for kind in value.__mro__ if issubclass(kind, BaseException)]}
    return {}


def _is_open(subject: Any, name: Any) -> bool:
    return isinstance(name, str) and not name.startswith("_") and type(subject).__module__ == TESTS


def _update(old: Any, new: Any) -> None:
    """Give lists, dictionaries and sets that were passed what the call left in them."""
    for before, after in zip(old, new, strict=False):
        if type(before) is type(after) and isinstance(before, list | bytearray):
            before[:] = after
        elif type(before) is type(after) and isinstance(before, dict | set):
            before.clear()
            before.update(after)


def _coded() -> list[tuple[str, Any, Any]]:
    """(tag, type, its parts) of what is sent by its parts."""
    import collections
    from decimal import Decimal
    from fractions import Fraction

    def pairs(value: Any) -> list[list[Any]]:
        return [[key, item] for key, item in dict.items(value)]

    return [
        ("tuple", tuple, lambda value: tuple.__iter__(value)), ("set", set, lambda value: set.__iter__(value)),
        ("frozenset", frozenset, lambda value: frozenset.__iter__(value)),
        ("counter", collections.Counter, pairs), ("ordered", collections.OrderedDict, pairs), ("dict", dict, pairs),
        ("deque", collections.deque, lambda value: collections.deque.__iter__(value)),
        ("bytes", bytes, lambda value: [bytes.hex(value)]), ("bytearray", bytearray, lambda value: [value.hex()]),
        ("complex", complex, lambda value: [value.real, value.imag]),
        ("range", range, lambda value: [value.start, value.stop, value.step]),
        ("slice", slice, lambda value: [value.start, value.stop, value.step]),
        ("decimal", Decimal, lambda value: [Decimal.__str__(value)]),
        ("fraction", Fraction, lambda value: [value.numerator, value.denominator]),
    ]  # fmt: skip


def _made() -> dict[str, Any]:
    import collections
    from decimal import Decimal
    from fractions import Fraction

    return {
        "tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict, "deque": collections.deque,
        "counter": lambda parts: collections.Counter(dict(parts)), "ordered": collections.OrderedDict,
        "bytes": lambda parts: bytes.fromhex(parts[0]), "bytearray": lambda parts: bytearray.fromhex(parts[0]),
        "complex": lambda parts: complex(*parts), "range": lambda parts: range(*parts),
        "slice": lambda parts: slice(*parts), "decimal": lambda parts: Decimal(parts[0]),
        "fraction": lambda parts: Fraction(*parts), "type": lambda parts: _TYPES[parts[0]],
    }  # fmt: skip


_TYPES = {name: value for name, value in vars(builtins).items() if isinstance(value, type)}
# Built-in exceptions that are made of a text.
_ERRORS = {name: kind for name, kind in _TYPES.items()
           if issubclass(kind, Exception) and not issubclass(kind, UnicodeError | ExceptionGroup)}  # fmt: skip
_CODED, _MAKE = _coded(), _made()
_PLAIN: dict[type, Any] = {
    bool: bool, int: lambda value: int.__add__(value, 0), float: lambda value: float.__add__(value, 0.0),
    str: lambda value: "".join(str.__iter__(value)), list: lambda value: [*list.__iter__(value)],
}  # fmt: skip
TESTS = "tests"


def text_of(error: BaseException) -> str:
    try:
        return str(error)[:OUTCOME_CHARS]
    except BaseException:
        return ""
