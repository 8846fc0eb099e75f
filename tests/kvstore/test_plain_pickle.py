"""Pickles read without running them: plain data comes back from every protocol, all else is refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from kvstore import plain_pickle
from kvstore.errors import DatasetError

#: As one of RefCOCO's records, and what else of plain data there is.
RECORD = {
    "ann_id": 1719310,
    "file_name": "COCO_train2014_000000581857_16.jpg",
    "sentences": [{"tokens": ["the", "lady"], "raw": "THE LADY", "sent": "the lady"}],
}
PLAIN = [
    RECORD,
    [0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**63, 2**64 - 1, -(2**63)],
    [0.0, -0.5, 1e300, 1 / 3, float("inf")],
    [True, False, None],
    ["", "a'b\"c", "café", "line\nline\\", "\U0001f600", "\x00\x7f", "long " * 2000],
    [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ([], {})],
    [[], {}, {"a": {"b": [{}]}}, {1: 2, None: 3, 0.5: 4}],
    list(range(3000)),
    {str(number): number for number in range(3000)},
    [["shared"]] * 300,
]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("data", PLAIN)
def test_plain_data_comes_back_whole(tmp_path: Path, data: Any, protocol: int) -> None:
    found = plain_pickle.read(written(tmp_path / "x.p", pickle.dumps(data, protocol)))
    assert found == data
    assert repr(found) == repr(data)  # True is no 1, and the order of keys is kept


def test_what_was_one_list_twice_is_one_list_again(tmp_path: Path) -> None:
    one: list[Any] = []
    first, second = plain_pickle.read(written(tmp_path / "x.p", pickle.dumps([one, one], 2)))
    assert first is second


@pytest.mark.parametrize(
    ("content", "data"),
    [  # written by hand as Python 2 writes them; its texts are byte strings
        (
            b"(lp0\n(dp1\nS'sent'\np2\nS'the lady'\np3\nsS'ann_id'\np4\nI1719310\nsa.",
            [{"sent": "the lady", "ann_id": 1719310}],
        ),
        (
            b"(lp0\nS\"it's\"\np1\naS'caf\\xc3\\xa9'\np2\naVcaf\\u00e9\np3\naL12L\na.",
            ["it's", "café", "café", 12],
        ),
        (
            b"\x80\x02]q\x00(U\x04ladyq\x01T\x05\x00\x00\x00caf\xc3\xa9q\x02h\x01K\x05e.",
            ["lady", "café", "lady", 5],
        ),
        (b"(I01\nI00\nI7\nF0.5\nt.", (True, False, 7, 0.5)),
        (b"(S'a'\nI1\nd.", {"a": 1}),
    ],
)
def test_python_2s_own_forms_are_read(tmp_path: Path, content: bytes, data: Any) -> None:
    assert repr(plain_pickle.read(written(tmp_path / "x.p", content))) == repr(data)


class Hostile:
    """Leaves a file behind when it is unpickled in the ordinary way."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    content = pickle.dumps([RECORD, Hostile(trace)], protocol)
    named = "STACK_GLOBAL" if protocol >= 4 else "GLOBAL"
    path = written(tmp_path / "refs.p", content)
    with pytest.raises(DatasetError, match=rf"refs\.p holds {named} at byte \d+.*might run code"):
        plain_pickle.read(path)
    assert not trace.exists()
    pickle.loads(content)  # noqa: S301 - our own: it does leave its trace when it is let
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cos\nsystem\n(S'touch x'\ntR.", "GLOBAL at byte 0"),
        (b"(S'touch x'\nios\nsystem\n.", "INST at byte 12"),
        (b"S'x'\n)R.", "REDUCE at byte 6"),
        (b"(S'x'\no.", "OBJ at byte 6"),
        (b"\x80\x02U\x01x)\x81.", "NEWOBJ at byte 6"),
        (b"\x80\x04\x8c\x01x)}\x92.", "NEWOBJ_EX at byte 7"),
        (b"}}b.", "BUILD at byte 2"),
        (b"\x80\x02\x82\x01.", "EXT1 at byte 2"),
        (b"Psomewhere\n.", "PERSID at byte 0"),
        (b"S'x'\nQ.", "BINPERSID at byte 5"),
        (b"\x80\x05\x97.", "NEXT_BUFFER at byte 2"),
    ],
)
def test_an_opcode_that_is_more_than_plain_data_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    with pytest.raises(DatasetError, match=rf"x\.p holds {named}: .*Get it again"):
        plain_pickle.read(written(tmp_path / "x.p", content))


@pytest.mark.parametrize("data", [OrderedDict(a=1), Fraction(1, 2), {1, 2}, b"bytes", Path("x")])
def test_other_things_than_plain_data_are_refused(tmp_path: Path, data: Any) -> None:
    with pytest.raises(DatasetError, match="more than plain data"):
        plain_pickle.read(written(tmp_path / "x.p", pickle.dumps(data, 4)))


@pytest.mark.parametrize("protocol", range(6))
def test_a_file_cut_off_anywhere_is_told(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps([RECORD, 1.5, 2**70, (1, 2)], protocol)
    for size in range(len(content)):
        with pytest.raises(
            DatasetError, match=r"x\.p is no pickle, or it is cut off or broken.*get it again"
        ):
            plain_pickle.read(written(tmp_path / "x.p", content[:size]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",  # JSON
        b"<html>",
        b"\xff.",
        b"h\x05.",  # out of a memo that is empty
        b"]K\x01s.",  # half a pair
        b"N]a.a.",  # an item for no list
        b"]NNs.",  # a pair for a list
        b"(K\x01d.",  # a key without a value
        b"}]K\x01s.",  # a list as a key
        b"})K\x01s.",  # a tuple as a key
        b"\x80\x02T\xff\xff\xff\xffx.",  # a length below 0
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffx.",  # a length of 2**64 - 1
        b"U\x01\xe9.",  # a byte that is no UTF-8
        b"Sno quotes\n.",
        b"Iseven\n.",
        b"t.",
        b".",
    ],
)
def test_bytes_that_are_no_pickle_are_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DatasetError, match=r"x\.p is no pickle, or it is cut off or broken"):
        plain_pickle.read(written(tmp_path / "x.p", content))


def test_deep_nesting_ends_nothing(tmp_path: Path) -> None:
    deep = plain_pickle.read(written(tmp_path / "x.p", b")" + b"\x85" * 100_000 + b"."))
    for _ in range(100_000):
        (deep,) = deep
    assert deep == ()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read .*x\.p: No such file"):
        plain_pickle.read(tmp_path / "x.p")
