"""Flipped bits in a store: noticed by `check --deep`, taken out by `repair`, made again by an ingest."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
import xxhash

from kvstore import text_values, vectors
from kvstore import verify as verifying
from kvstore.errors import StoreError, UnknownNameError
from kvstore.repair import repair, tasks
from kvstore.store import Store
from kvstore.vectors import schema as tables
from kvstore.vectors.checksums import checksum
from kvstore.verify import Verdict, verify
from tests import dying
from tests.ingesting import assert_clean, ingest, pictures, query, rows

RUN = "folder-tiny-onevision"
SIZES = ((100, 76), (60, 110), (128, 128), (90, 70), (80, 120))
SITES = ("value", "key", "input", "encoder")
LARGE = ("patch_kv", "patch_input", "patch_encoder")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("images"), SIZES)


def made(root: Path, images: Path) -> Store:
    """All sites of two layers, in files of at most two images each."""
    for limit in (2, 4, 5):
        store, _ = ingest(root, images, sites=SITES, encoder_layers="0,4", limit=limit)
    return store


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made(tmp_path_factory.mktemp("whole"), images)


@pytest.fixture
def store(whole: Store, tmp_path: Path) -> Store:
    """A copy to damage."""
    shutil.copytree(whole.root, tmp_path / "store", symlinks=True)
    return Store.open(tmp_path / "store")


def verdict(store: Store) -> Verdict:
    (task,) = tasks(store)
    return verify(task)


def damage(store: Store, kind: str, image: int, seed: int = 0, count: int = 64) -> None:
    """Flip bytes among the first vectors that an image has in a table."""
    column = {"patch_kv": "value", "pooled_kv": "value"}.get(kind, "feature")
    dataset = lance.dataset(str(tables.location(store.lance, RUN, kind)))
    stored = dataset.to_table(columns=["image_id", column])
    mine = stored.filter(pa.compute.equal(stored["image_id"], image))[column].combine_chunks()
    needle = mine.flatten().to_numpy(zero_copy_only=False).tobytes()[:512]
    for file in sorted(Path(dataset.uri, "data").glob("*.lance")):
        data = bytearray(file.read_bytes())
        place = bytes(data).find(needle)
        if place >= 0:
            for at in random.Random(seed).sample(range(len(needle)), count):
                data[place + at] ^= 0xFF
            file.write_bytes(data)
            return
    raise AssertionError(f"no vectors of image {image} in {kind}")


def test_a_checksum_is_xxh3_of_the_columns_bytes_however_they_are_cut():
    numbers, flat = np.arange(6, dtype=np.int64), np.arange(24, dtype=np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), 4)
    table = pa.table({"image_id": pa.array(numbers), "value": column})
    expected = xxhash.xxh3_64_intdigest(numbers.tobytes() + flat.tobytes())
    assert checksum(table) == expected
    cut = pa.Table.from_batches([*table.slice(0, 1).to_batches(), *table.slice(1).to_batches()])
    assert checksum(cut) == expected
    part = xxhash.xxh3_64_intdigest(numbers[2:4].tobytes() + flat[8:16].tobytes())
    assert checksum(table.slice(2, 2)) == part


def test_an_undamaged_store_is_found_whole_also_after_optimize(store: Store):
    assert verdict(store) == Verdict(RUN, 5)
    store.optimize()
    assert verdict(store) == Verdict(RUN, 5)


@pytest.mark.parametrize("kind", [*LARGE, "pooled_kv"])
@pytest.mark.parametrize("count", [1, 64])
def test_flipped_bytes_of_vectors_are_noticed_and_name_the_image(store: Store, kind: str, count: int):
    damage(store, kind, image=2, count=count)
    found = verdict(store)
    assert [(part.kind, part.image_id) for part in found.broken] == [(kind, 2)]


def test_repair_and_the_same_ingest_end_with_the_rows_of_an_undamaged_run(
    store: Store, whole: Store, images: Path
):
    damage(store, "patch_kv", image=1)
    damage(store, "patch_encoder", image=4)
    done = repair(store, RUN)
    assert done.images == [1, 4]
    assert verdict(store) == Verdict(RUN, 3)
    assert query(store, "select state, images from run") == [("interrupted", 3)]
    assert query(store, "select count(*) from key_stat") == [(0,)]
    again, outcome = ingest(store.root, images, sites=SITES, encoder_layers="0,4")
    assert (outcome.images, outcome.already) == (2, 3)
    order = {
        "patch_kv": ["image_id", "layer", "head", "patch"],
        "pooled_kv": ["image_id", "layer", "head"],
        "patch_input": ["image_id", "patch"],
        "patch_encoder": ["image_id", "layer", "patch"],
    }
    for kind, keys in order.items():
        sort = [(key, "ascending") for key in keys]
        assert rows(again, RUN, kind).sort_by(sort) == rows(whole, RUN, kind).sort_by(sort), kind
    for image in range(5):
        mine, theirs = (vectors.read_site(s.lance, RUN, "value", 3, image) for s in (again, whole))
        assert np.array_equal(mine, theirs)
    stat = "select * exclude (run_id) from key_stat order by all"
    np.testing.assert_allclose(np.array(query(again, stat)), np.array(query(whole, stat)), rtol=1e-12)
    assert verdict(again) == Verdict(RUN, 5)
    assert_clean(again)


def flip(store: Store, kind: str) -> None:
    """Flip bytes of the first vector or sum of a small table, which is one file."""
    dataset = lance.dataset(str(tables.location(store.lance, RUN, kind)))
    (fragment,) = dataset.get_fragments()
    file = Path(dataset.uri, "data", fragment.data_files()[0].path)
    column = dataset.to_table()[{"text_kv": "value", "key_moment": "total"}[kind]].combine_chunks()
    needle = bytes(column.values.buffers()[1])[:64] if kind == "text_kv" else column[0].as_py()[:64]
    data = bytearray(file.read_bytes())
    place = bytes(data).index(needle)
    for at in range(place, place + 16):
        data[at] ^= 0x5A
    file.write_bytes(data)


def test_broken_vectors_of_texts_are_noticed_removed_and_made_again(store: Store):
    text_values.fill(store, RUN, ["cat", "dog"])
    assert verdict(store) == Verdict(RUN, 5)
    told = "select text, layer, head, value from text_kv order by all"
    before = query(store, told)
    with store.publish() as con:
        con.execute("insert into segment values (?, 'p', 0, 'key', 0, 0, '1', '1')", [RUN])
    flip(store, "text_kv")
    (found,) = verdict(store).broken
    assert (found.kind, found.image_id) == ("text_kv", None)
    assert found.why.endswith("differ from those that were stored")
    done = repair(store, RUN)
    assert (done.images, done.removed, done.derived) == ([], ["text_kv"], 1)
    assert query(store, "select count(*) from key_stat") != [(0,)]
    assert query(store, "from text_kv") == query(store, "from text_input") == []
    assert text_values.fill(store, RUN, ["cat", "dog"]) == 2
    assert query(store, told) == before
    assert verdict(store) == Verdict(RUN, 5)


def test_broken_key_moments_are_noticed_and_made_again_from_the_keys(store: Store, images: Path):
    stat = "select * exclude (run_id) from key_stat order by all"
    before = query(store, stat)
    flip(store, "key_moment")
    assert [(part.kind, part.image_id) for part in verdict(store).broken] == [("key_moment", None)]
    assert repair(store, RUN).removed == ["key_moment"]
    again, _ = ingest(store.root, images, sites=SITES, encoder_layers="0,4")
    np.testing.assert_allclose(np.array(query(again, stat)), np.array(before), rtol=1e-12)
    assert verdict(again) == Verdict(RUN, 5)


@pytest.mark.parametrize("kind", ["_versions", "data"])
def test_an_ingest_makes_broken_key_moments_anew_by_itself(store: Store, images: Path, kind: str):
    stat = "select * exclude (run_id) from key_stat order by all"
    before = query(store, stat)
    for file in (tables.location(store.lance, RUN, "key_moment") / kind).iterdir():
        file.write_bytes(file.read_bytes()[:100])
    again, _ = ingest(store.root, images, sites=SITES, encoder_layers="0,4")
    np.testing.assert_allclose(np.array(query(again, stat)), np.array(before), rtol=1e-12)
    assert verdict(again) == Verdict(RUN, 5)


def test_a_file_that_is_cut_off_costs_its_images_alone(store: Store, images: Path):
    (fragment, *_) = lance.dataset(str(tables.location(store.lance, RUN, "patch_input"))).get_fragments()
    file = tables.location(store.lance, RUN, "patch_input") / "data" / fragment.data_files()[0].path
    file.write_bytes(file.read_bytes()[:1000])
    assert {part.image_id for part in verdict(store).broken if part.kind == "patch_input"} >= {0, 1}
    assert repair(store, RUN).images == [0, 1]
    again, _ = ingest(store.root, images, sites=SITES, encoder_layers="0,4")
    assert verdict(again) == Verdict(RUN, 5)
    assert_clean(again)


def test_any_byte_of_any_data_file_of_vectors_is_noticed(whole: Store, tmp_path: Path):
    """A sample of places in whole files, metadata of theirs included; nothing ends in a traceback."""
    chance = random.Random(7)
    unnoticed = []
    for trial in range(6):
        store = Store.open(shutil.copytree(whole.root, tmp_path / str(trial), symlinks=True))
        kind = chance.choice(LARGE)
        file = chance.choice(sorted((tables.location(store.lance, RUN, kind) / "data").glob("*.lance")))
        data = bytearray(file.read_bytes())
        first = chance.randrange(len(data) - 64)
        data[first : first + 64] = bytes(byte ^ 0x5A for byte in data[first : first + 64])
        file.write_bytes(data)
        if not verdict(store).broken:
            unnoticed.append((kind, file.name, first, len(data)))
    assert unnoticed == []


def test_an_abort_ends_one_part_and_the_rest_is_read(store: Store, monkeypatch: pytest.MonkeyPatch):
    damage(store, "patch_encoder", image=4)
    monkeypatch.setattr(verifying, "read", dying.parts)
    found = verdict(store)
    assert [(part.kind, part.image_id) for part in found.broken] == [dying.PART, ("patch_encoder", 4)]
    assert "ended the process by SIGABRT" in found.broken[0].why


def test_where_nothing_can_be_read_that_is_told_and_ends(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verifying, "read", dying.nothing)
    (found,) = verdict(store).broken
    assert found.why == "reading it ended the process by SIGABRT; what comes after it is not read"


def test_predictions_of_broken_vectors_go(store: Store):
    with store.publish() as con:
        con.execute("insert into segment values (?, 'p', 0, 'key', 0, 0, '1', '1')", [RUN])
    damage(store, "patch_kv", image=3)
    assert repair(store, RUN).derived == 1
    assert query(store, "select count(*) from segment") == [(0,)]


def test_where_nothing_is_broken_repair_changes_nothing(store: Store):
    before = store.runs()
    done = repair(store, RUN)
    assert (done.images, done.indices, done.derived) == ([], [], 0)
    assert [run["versions"] for run in store.runs()] == [run["versions"] for run in before]


def test_images_stored_before_there_were_checksums_are_counted_and_new_ones_get_theirs(
    images: Path, tmp_path: Path
):
    store, _ = ingest(tmp_path, images, limit=2)
    shutil.rmtree(tables.location(store.lance, RUN, tables.CHECKSUM))
    with store.publish() as con:
        con.execute(
            "update run set versions = map_from_entries("
            "list_filter(map_entries(versions), lambda entry: entry.key <> 'checksum'))"
        )
    assert verdict(store) == Verdict(RUN, 2, unsummed=2 * 4)
    ingest(tmp_path, images)
    assert verdict(store) == Verdict(RUN, 5, unsummed=2 * 4)


def test_a_table_broken_as_a_whole_is_told_with_the_way_out(store: Store):
    for file in (tables.location(store.lance, RUN, tables.PATCH_SPAN) / "data").glob("*"):
        file.write_bytes(b"")
    assert verdict(store).broken[0].kind == tables.PATCH_SPAN
    assert verdict(store).first.count("kvstore repair") == 1
    with pytest.raises(StoreError, match=rf"patch_span of run {RUN} is broken .*; kvstore drop {RUN} --now"):
        repair(store, RUN)


def test_a_run_that_is_not_there(store: Store):
    with pytest.raises(UnknownNameError, match="no run named 'other'"):
        repair(store, "other")
