"""Plain data out of a pickle file: dicts, lists, tuples, texts and numbers; nothing of the file is ever run.

A pickle is a program for a stack machine, and some of its opcodes call whatever function it names. Here only
those are known that build plain data, and the first other one ends the reading. Byte strings, which only
Python 2 wrote for texts, are texts here, in UTF-8. Numbers have 64 bits at most. Some 6 MB are read in a
second.

A pickle can name what it made once, in two bytes, wherever it is to stand. So a small one can stand for data
without end, through lists of lists. It is measured as if it were written out, and refused where that is more
than `FACTOR` times as long as the file.
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kvstore.errors import DatasetError

#: Data written out are at most so many times as long as their file: names of images, which the refs of
#: RefCOCO repeat, come to less than 20.
FACTOR = 64

_FAULTS = (ValueError, TypeError, LookupError, struct.error)  # what bytes that are no whole pickle lead to


def read(path: Path) -> Any:
    """The data that the pickle `path` holds, of any protocol up to 5.

    Raises `DatasetError` when the file cannot be read, is cut off, or holds more than plain data; then it
    names the opcode.
    """
    try:
        machine = _Machine(path, path.read_bytes())
        found = machine.run()
        machine.check_length(found)
        return found
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except _FAULTS as error:
        raise DatasetError(
            f"{path} is no pickle, or it is cut off or broken ({error}); get it again from its source"
        ) from error


class _Machine:
    """The bytes, the stack, the stacks that marks have put aside, and the memo."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data = path, data
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.fetched, self.nested = 0, False  # letters of texts that stand again, and whether lists do, too

    def run(self) -> Any:
        """Carry out the opcodes up to STOP; where the bytes end before it, an `IndexError` is raised here."""
        place = 0
        while self.data[place] != _STOP:
            known = _TABLE[self.data[place]]
            if known is None:
                raise DatasetError(self._refusal(place))
            read, carry_out = known
            argument, place = read(self.data, place + 1)
            carry_out(self, argument)
        return self.stack.pop()

    def fetch(self, number: int) -> Any:
        """What was stored under a number, to stand here, too."""
        found = self.memo[number]
        if isinstance(found, str):
            self.fetched += len(found)
        self.nested = self.nested or _is_nested(found)
        return found

    def check_length(self, found: Any) -> None:
        """Raise `ValueError` for data that would be too long if they were written out."""
        most = FACTOR * len(self.data)
        if max(self.fetched, _length(found, most) if self.nested else 0) > most:
            raise ValueError(f"its data, written out, would be more than {FACTOR} times as long as the file")

    def _refusal(self, place: int) -> str:
        code = self.data[place]
        if code not in _NAMES:
            raise ValueError(f"no opcode is {code:#04x}, byte {place}")
        return (
            f"{self.path} holds {_NAMES[code]} at byte {place}: more than plain data, and it might run code, "
            "so it is not read. Get it again from its source, or have it written as JSON where it is trusted"
        )

    def marked(self) -> list[Any]:
        """What came on the stack since the last mark, taken off together with the mark."""
        items, self.stack = self.stack, self.aside.pop()
        return items

    def topmost(self, count: int) -> list[Any]:
        """The `count` items on top, taken off the stack."""
        items = self.stack[-count:]
        if len(items) < count:
            raise ValueError("its stack runs empty")
        del self.stack[-count:]
        return items


# --------------------------------------------- an opcode's argument: its bytes, and where the next one begins

Reader = Callable[[bytes, int], tuple[bytes, int]]


def _nothing(data: bytes, place: int) -> tuple[bytes, int]:
    return b"", place


def _line(data: bytes, place: int) -> tuple[bytes, int]:
    end = data.index(b"\n", place)
    return data[place:end], end + 1


def _fixed(size: int) -> Reader:
    return lambda data, place: (data[place : place + size], place + size)


def _counted(size: int) -> Reader:
    """A count of `size` bytes, then as many bytes."""

    def read(data: bytes, place: int) -> tuple[bytes, int]:
        start = place + size
        end = start + _natural(data[place:start])
        return data[start:end], end

    return read


# ------------------------------------------------------------------------------ what an argument's bytes mean

_natural = partial(int.from_bytes, byteorder="little")
_integer = partial(int.from_bytes, byteorder="little", signed=True)


def _written(line: bytes) -> int:
    """A number in digits. Protocol 0 writes True as 01 and False as 00."""
    return line == b"01" if line in (b"01", b"00") else _of_64_bits(int(line.removesuffix(b"L")))


def _double(data: bytes) -> float:
    (number,) = struct.unpack(">d", data)
    return float(number)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _escaped(line: bytes) -> str:
    return line.decode("raw-unicode-escape")


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[0] != line[-1]:
        raise ValueError(f"a text without its quotes: {line[:40]!r}")
    return _text(codecs.escape_decode(line[1:-1])[0])


def _of_64_bits(number: int) -> int:
    """The number; larger ones of equal hashes would make a dict of them slow."""
    if not -(2**63) <= number < 2**64:
        raise ValueError("a number has more than 64 bits")
    return number


# ------------------------------------------------------------------------------------- what the machine does

Step = Callable[[_Machine, bytes], None]


def _push(meaning: Callable[[bytes], Any]) -> Step:
    return lambda machine, argument: machine.stack.append(meaning(argument))


def _made(make: Callable[[_Machine], Any]) -> Step:
    """Put on the stack what `make` makes, in part of what it takes off."""

    def step(machine: _Machine, argument: bytes) -> None:
        made = make(machine)  # first, since it may put another stack in place
        machine.stack.append(made)

    return step


def _store(key: Callable[[bytes], int]) -> Step:
    def step(machine: _Machine, argument: bytes) -> None:
        machine.memo[key(argument)] = machine.stack[-1]

    return step


def _store_next(machine: _Machine, argument: bytes) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _fetch(key: Callable[[bytes], int]) -> Step:
    return lambda machine, argument: machine.stack.append(machine.fetch(key(argument)))


def _mark(machine: _Machine, argument: bytes) -> None:
    machine.aside.append(machine.stack)
    machine.stack = []


def _extend(take: Callable[[_Machine], list[Any]]) -> Step:
    """Items into the list below them."""

    def step(machine: _Machine, argument: bytes) -> None:
        items = take(machine)
        list.extend(machine.stack[-1], items)  # not its own method: another object's would be called

    return step


def _update(take: Callable[[_Machine], list[Any]]) -> Step:
    """Keys and values in turn into the dict below them."""

    def step(machine: _Machine, argument: bytes) -> None:
        items = take(machine)
        dict.update(machine.stack[-1], _pairs(items))

    return step


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """A dict of keys and values in turn. Tuples are no keys: to hash a million in each other ends Python."""
    keys = items[::2]
    if tuple in map(type, keys):
        raise ValueError("a tuple is a key")
    return dict(zip(keys, items[1::2], strict=True))


_STEPS: dict[str, tuple[Reader, Step]] = {
    "PROTO": (_fixed(1), lambda machine, argument: None),
    "FRAME": (_fixed(8), lambda machine, argument: None),
    "NONE": (_nothing, _made(lambda machine: None)),
    "NEWTRUE": (_nothing, _made(lambda machine: True)),
    "NEWFALSE": (_nothing, _made(lambda machine: False)),
    "INT": (_line, _push(_written)),
    "LONG": (_line, _push(_written)),
    "BININT": (_fixed(4), _push(_integer)),
    "BININT1": (_fixed(1), _push(_natural)),
    "BININT2": (_fixed(2), _push(_natural)),
    "LONG1": (_counted(1), _push(lambda argument: _of_64_bits(_integer(argument)))),
    "LONG4": (_counted(4), _push(lambda argument: _of_64_bits(_integer(argument)))),
    "FLOAT": (_line, _push(float)),
    "BINFLOAT": (_fixed(8), _push(_double)),
    "STRING": (_line, _push(_quoted)),
    "SHORT_BINSTRING": (_counted(1), _push(_text)),
    "BINSTRING": (_counted(4), _push(_text)),
    "UNICODE": (_line, _push(_escaped)),
    "SHORT_BINUNICODE": (_counted(1), _push(_text)),
    "BINUNICODE": (_counted(4), _push(_text)),
    "BINUNICODE8": (_counted(8), _push(_text)),
    "MARK": (_nothing, _mark),
    "EMPTY_LIST": (_nothing, _made(lambda machine: [])),
    "LIST": (_nothing, _made(_Machine.marked)),
    "APPEND": (_nothing, _extend(lambda machine: machine.topmost(1))),
    "APPENDS": (_nothing, _extend(_Machine.marked)),
    "EMPTY_DICT": (_nothing, _made(lambda machine: {})),
    "DICT": (_nothing, _made(lambda machine: _pairs(machine.marked()))),
    "SETITEM": (_nothing, _update(lambda machine: machine.topmost(2))),
    "SETITEMS": (_nothing, _update(_Machine.marked)),
    "EMPTY_TUPLE": (_nothing, _made(lambda machine: ())),
    "TUPLE": (_nothing, _made(lambda machine: tuple(machine.marked()))),
    "TUPLE1": (_nothing, _made(lambda machine: tuple(machine.topmost(1)))),
    "TUPLE2": (_nothing, _made(lambda machine: tuple(machine.topmost(2)))),
    "TUPLE3": (_nothing, _made(lambda machine: tuple(machine.topmost(3)))),
    "PUT": (_line, _store(int)),
    "BINPUT": (_fixed(1), _store(_natural)),
    "LONG_BINPUT": (_fixed(4), _store(_natural)),
    "MEMOIZE": (_nothing, _store_next),
    "GET": (_line, _fetch(int)),
    "BINGET": (_fixed(1), _fetch(_natural)),
    "LONG_BINGET": (_fixed(4), _fetch(_natural)),
}
_STOP = ord(".")
_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_TABLE = [_STEPS.get(_NAMES.get(code, "")) for code in range(256)]


# ------------------------------------------------------------------------------------------ data written out


def _length(found: Any, most: int) -> int:
    """Things in nested data and letters of their texts, each as often as it stands there; at most `most` + 1.

    Raises `ValueError` for a list that holds itself.
    """
    lengths: dict[int, int] = {}  # by id
    around: set[int] = set()  # what the topmost stands in
    todo = [found]
    while todo:
        top, parts = todo[-1], _parts(todo[-1])
        waiting = [part for part in parts if _is_nested(part) and id(part) not in lengths]
        if not waiting:
            lengths[id(top)] = min(
                most + 1, 1 + sum(lengths.get(id(part)) or _letters(part) for part in parts)
            )
            around.discard(id(top))
            todo.pop()
            continue
        around.add(id(top))
        if any(id(part) in around for part in waiting):
            raise ValueError("a list holds itself")
        todo += waiting
    return lengths[id(found)]


def _is_nested(thing: Any) -> bool:
    return isinstance(thing, list | dict | tuple)


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return [*thing.keys(), *thing.values()]
    return list(thing) if _is_nested(thing) else []


def _letters(thing: Any) -> int:
    return 1 + len(thing) if isinstance(thing, str) else 1
