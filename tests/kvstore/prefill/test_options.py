"""What a user can ask of an ingest: mistakes are told before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvstore import models
from kvstore.errors import KvstoreError, UnknownNameError, UsageError
from kvstore.prefill.options import Options, layer_list, settled, site_list


@pytest.mark.parametrize(
    ("text", "layers"),
    [(None, (0, 1, 2, 3, 4)), ("0-2", (0, 1, 2)), ("4, 1", (1, 4)), ("3,1-3,", (1, 2, 3)), ("2-2", (2,))],
)
def test_layers_are_numbers_and_ranges(text: str | None, layers: tuple[int, ...]) -> None:
    assert layer_list(text, 5) == layers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5", "there is no layer 5: this model has 5, 0 to 4"),
        ("0-99999999999999", "there is no layer 99999999999999"),
        ("-1", "'-1' is no layer or range"),
        ("1-", "'1-' is no layer or range"),
        ("a", "'a' is no layer"),
        ("²", "'²' is no layer"),
        ("3-1", "names no layer"),
        ("", "names no layer"),
        (",", "names no layer"),
    ],
)
def test_layers_that_are_not_there_are_told(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        layer_list(text, 5)


def test_sites_come_in_one_order_whatever_the_user_writes() -> None:
    assert site_list("input, key,value,key") == ("value", "key", "input")
    with pytest.raises(UnknownNameError, match="no site named 'valu'; did you mean 'value'"):
        site_list("valu")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"limit": 0}, "--limit must be at least 1, not 0"),
        ({"batch": 0}, "--batch must be at least 1, not 0"),
        ({"pool": -2}, "--pool must be at least 1, not -2"),
        ({"workers": -1}, "--workers must be at least 1, not -1"),
        ({"sites": ()}, "no site to store"),
        ({"view": "bas"}, "no view named 'bas'; did you mean 'base'"),
    ],
)
def test_values_out_of_range_are_told(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(KvstoreError, match=said):
        Options("folder", "tiny-onevision", root=Path(), **wanted)


def test_what_a_model_stores_by_default_is_its_own() -> None:
    mlm, encoder = models.load_config("tiny-onevision"), models.load_config("tiny-encoder")
    asked = Options("folder", "")
    assert settled(asked, mlm).sites == ("value", "key", "input")
    assert (settled(asked, encoder).sites, settled(asked, encoder).encoder_layers) == (("encoder",), "0-4")
    assert settled(Options("folder", "", encoder_layers="4"), encoder).encoder_layers == "4"
    with pytest.raises(UsageError, match="--encoder-layers needs --sites encoder"):
        settled(Options("folder", "", encoder_layers="0"), mlm)
