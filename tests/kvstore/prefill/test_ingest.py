"""A whole ingest: what is stored, against plain transformers, numpy and hand arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from transformers import DynamicCache

from kvstore import prompting
from kvstore.contracts import Layout
from kvstore.errors import UsageError
from kvstore.prefill.forward import Engine
from kvstore.store import Store
from kvstore.vectors import schema as tables
from kvstore.vectors import write
from tests import tiny
from tests.ingesting import Array, array, assert_clean, ingest, pictures, query, rows

SIZES = ((100, 76), (60, 110), (128, 128))
RUN = "folder-tiny-onevision"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("images"), SIZES)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Every site of two layers."""
    root = tmp_path_factory.mktemp("store")
    store, _ = ingest(root, images, sites=("value", "key", "input", "encoder"), encoder_layers="0,4")
    return store


def overview(name: str, size: tuple[int, int], seed: int, prefix: str = "") -> tuple[Any, DynamicCache, Any]:
    """Plain transformers over an image's overview: projector output, cache, tower's hidden states."""
    loaded = tiny.named(name)
    core, config = loaded.model.model, loaded.config
    pixels = tiny.processor(name).image_processor(tiny.noise(size, seed), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states = core.vision_tower(pixels[0][:1], output_hidden_states=True).hidden_states
        features = core.multi_modal_projector(states[config.vision_feature_layer])[0]
        head = torch.tensor([prompting.prompt_ids(loaded, prefix)])
        embeds = torch.cat([core.get_input_embeddings()(head), features[None]], 1)
        cache = core.language_model(inputs_embeds=embeds, use_cache=True).past_key_values
    return features, cache, states


def side(name: str = "tiny-onevision") -> int:
    vision = tiny.loaded(name).config.vision_config
    return int(vision.image_size // vision.patch_size)


def test_keys_and_values_are_those_of_plain_transformers_in_order(whole: Store) -> None:
    stored, patches = rows(whole, RUN, "patch_kv"), side() ** 2
    places = np.stack([stored[c].to_numpy() for c in ("image_id", "layer", "head", "patch")], 1)
    expected = [(i, n, h, p) for i in range(3) for n in (1, 3) for h in range(2) for p in range(patches)]
    assert places.tolist() == [list(row) for row in expected]
    for site in ("key", "value"):
        found = array(stored, site).reshape(3, 2, 2, patches, -1)
        for image, size in enumerate(SIZES):
            cache = overview("tiny-onevision", size, image)[1]
            for row, layer in enumerate((1, 3)):
                plain = getattr(cache.layers[layer], f"{site}s")[0][:, -patches:]
                assert np.array_equal(found[image, row], plain.half().numpy())


def test_input_and_encoder_are_those_of_plain_transformers(whole: Store) -> None:
    patches = side() ** 2
    given = array(rows(whole, RUN, "patch_input"), "feature").reshape(3, patches, -1)
    encoder = array(rows(whole, RUN, "patch_encoder"), "feature").reshape(3, 2, patches, -1)
    for image, size in enumerate(SIZES):
        features, _, states = overview("tiny-onevision", size, image)
        assert np.array_equal(given[image], features.half().numpy())
        for row, layer in enumerate((0, 4)):
            assert np.array_equal(encoder[image, row], states[layer][0].half().numpy())


def test_pooled_vectors_are_means_and_norms_of_what_is_stored(whole: Store) -> None:
    pooled, patches = rows(whole, RUN, "pooled_kv"), side() ** 2
    for site in ("key", "value"):
        mean = array(rows(whole, RUN, "patch_kv"), site).astype(np.float64).reshape(12, patches, -1).mean(1)
        np.testing.assert_allclose(array(pooled, site), mean, rtol=2**-10, atol=2**-16)
        norms = pooled[f"{site}_norm"].to_numpy()
        np.testing.assert_allclose(norms, np.linalg.norm(mean, axis=1), rtol=1e-5)
    assert_clean(whole)


def test_grid_of_the_overview_covers_what_the_encoders_patches_cover(whole: Store) -> None:
    found = query(whole, "select image_id, grid, rows, columns, x0, y0, x1, y1, first_patch from token_grid")
    # an image squeezed to 114 x 114 pixels holds 14 whole patches of 8; the last 2 pixels belong to none
    boxes = [(image, 0, 14, 14, 0, 0, w * 112 / 114, h * 112 / 114, 0) for image, (w, h) in enumerate(SIZES)]
    np.testing.assert_allclose(sorted(found), boxes, rtol=1e-12)


def test_first_position_counts_the_prompt_before_the_image(images: Path, tmp_path: Path) -> None:
    store, _ = ingest(tmp_path, images, limit=1, prefix="look at this: ")
    head = prompting.prompt_ids(tiny.named("tiny-onevision"), "look at this: ")
    assert query(store, "select first_position, row_stride from token_grid") == [(len(head), side())]
    assert query(store, "select prefix, tokens from run") == [("look at this: ", len(head) + side() ** 2)]
    cache = overview("tiny-onevision", SIZES[0], 0, "look at this: ")[1]
    plain = cache.layers[3].values[0][:, len(head) :].half().numpy()
    with store.connect() as con:
        (run,) = con.execute("select run_id from run").fetchall()[0]
    found = array(rows(store, run, "patch_kv"), "value").reshape(2, 2, side() ** 2, -1)[1]
    assert np.array_equal(found, plain)


def test_key_moments_are_numpys_over_the_stored_keys(whole: Store) -> None:
    patches = side() ** 2
    keys = array(rows(whole, RUN, "patch_kv"), "key").astype(np.float64).reshape(3, 2, 2, patches, -1)
    assert_moments(whole, keys, (side(), side()))


def assert_moments(store: Store, keys: Array, shape: tuple[int, int], grid: int = 0) -> None:
    """`keys` [images, layers, heads, patches, width] of all images with a grid of `shape`."""
    found = query(
        store,
        "select n, mean_square, square_mean, variance from key_stat "
        f"where (rows, columns, grid) = {(*shape, grid)} order by layer, head, patch",
    )
    n, *moments = np.array(found).T
    mean_square, square_mean = (keys**2).sum(-1).mean(0).ravel(), (keys.mean(0) ** 2).sum(-1).ravel()
    assert set(n) == {len(keys)}
    expected = (mean_square, square_mean, mean_square - square_mean)
    for got, want in zip(moments, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12 * mean_square.max())


@pytest.mark.parametrize(
    ("sites", "layers", "tables"),
    [
        (("value",), "0", {"patch_kv": ["value"], "pooled_kv": ["value", "value_norm"]}),
        (("key",), "2-3", {"patch_kv": ["key"], "pooled_kv": ["key", "key_norm"]}),
        (("input",), None, {"patch_input": ["feature"]}),
    ],
)
def test_only_what_is_asked_for_is_stored(
    images: Path, tmp_path: Path, sites: tuple[str, ...], layers: str | None, tables: dict[str, list[str]]
) -> None:
    store, outcome = ingest(tmp_path, images, sites=sites, layers=layers, limit=1)
    internal = {"patch_span", "key_moment", "checksum"}
    there = {p.name.split(".")[-2] for p in store.lance.glob("*.lance")} - internal
    assert there == set(tables)
    for table, columns in tables.items():
        names = rows(store, outcome.run_id, table).schema.names
        assert [n for n in names if n not in ("image_id", "layer", "head", "patch")] == columns
    counted = query(store, "select count(*) from key_stat")[0][0]
    assert counted == (2 * 2 * side() ** 2 if "key" in sites else 0)
    assert_clean(store)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_models_own_tower_and_projector_are_stored_in_one_prefill(tmp_path: Path, name: str) -> None:
    images = pictures(tmp_path / "images", [(196, 140)])
    sites = ("input", "encoder")
    store, one = ingest(tmp_path / "store", images, model=f"{name}-untrained", layers=None, sites=sites)
    model = tiny.loaded(name)
    made = model.image_processor(tiny.noise((196, 140)), return_tensors="pt")
    core, further = model.model.model, {k: v for k, v in made.items() if k == "image_grid_thw"}
    with torch.no_grad():
        if further:  # Qwen: the merger's output, windows undone
            given = core.get_image_features(made["pixel_values"], **further).pooler_output[0]
        else:
            states = core.vision_tower(made["pixel_values"][0][:1], output_hidden_states=True).hidden_states
            given = core.multi_modal_projector(states[model.config.vision_feature_layer])[0][
                -(side(name) ** 2) :
            ]
    found = array(rows(store, one.run_id, "patch_input"), "feature")
    assert np.array_equal(found, given.half().numpy())
    encoder = rows(store, one.run_id, "patch_encoder")
    assert (encoder.num_rows, set(encoder["layer"].to_pylist())) == (
        len(found),
        {model.description["encoder_layers"]},
    )
    if not further:
        assert np.array_equal(array(encoder, "feature"), states[-1][0, -(side(name) ** 2) :].half().numpy())


def test_input_alone_does_not_run_the_language_model(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the language model was run")

    monkeypatch.setattr(Engine, "_decode", refuse)
    store, outcome = ingest(tmp_path, images, sites=("input", "encoder"), layers=None)
    assert outcome.images == 3
    assert rows(store, outcome.run_id, "patch_input").num_rows == 3 * side() ** 2


def blocks_mean(grid: Array, size: int) -> Array:
    """Mean over size x size blocks of [rows, columns, width], those at the far edges smaller."""
    steps = [range(0, n, size) for n in grid.shape[:2]]
    return np.array([grid[r : r + size, c : c + size].mean((0, 1)) for r in steps[0] for c in steps[1]])


@pytest.mark.parametrize(("name", "size"), [("tiny-onevision", (100, 76)), ("tiny-qwen", (200, 90))])
@pytest.mark.parametrize("pool", [2, 3])
def test_pooling_averages_blocks_up_to_the_odd_edges(
    tmp_path: Path, name: str, size: tuple[int, int], pool: int
) -> None:
    images = pictures(tmp_path / "images", [size])
    store, one = ingest(tmp_path / "store", images, model=name, sites=("value", "input"), dtype="float32")
    _, other = ingest(tmp_path / "store", images, model=name, sites=("value", "input"), pool=pool)
    grids = {
        run: (r, c)
        for run, r, c in query(store, "select run_id, rows, columns from token_grid order by run_id")
    }
    high, wide = grids[one.run_id]
    assert grids[other.run_id] == (-(-high // pool), -(-wide // pool))
    full = array(rows(store, one.run_id, "patch_kv"), "value").astype(np.float64).reshape(4, high, wide, -1)
    expected = np.concatenate([blocks_mean(grid, pool) for grid in full])
    found = array(rows(store, other.run_id, "patch_kv"), "value")
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    assert_clean(store)


def test_all_tiles_of_anyres_are_stored_with_their_boxes(images: Path, tmp_path: Path) -> None:
    store, outcome = ingest(tmp_path, images, view="all", limit=2)
    loaded = tiny.named("tiny-onevision")
    for image, size in enumerate(SIZES[:2]):
        layout: Layout = loaded.family.layout(loaded.config, loaded.image_processor, size, "all")
        assert len(layout.grids) == 2
        found = query(store, f"select rows, columns, first_patch from token_grid where image_id = {image}")
        first = layout.grids[0].patches
        assert sorted(found, key=lambda row: row[2]) == [
            (layout.grids[0].rows, layout.grids[0].columns, 0),
            (layout.grids[1].rows, layout.grids[1].columns, first),
        ]
    counted = query(store, "select image_id, count(*) from patch_kv group by all order by all")
    sizes = query(store, "select image_id, sum(rows * columns) * 4 from token_grid group by all order by all")
    assert counted == sizes
    assert outcome.images == 2
    assert_clean(store)


def test_images_of_several_sizes_keep_their_own_grids_and_moments(tmp_path: Path) -> None:
    sizes = [(280, 140), (140, 280), (280, 140), (196, 196), (280, 140)]
    images = pictures(tmp_path / "images", sizes)
    store, outcome = ingest(tmp_path / "a", images, model="tiny-qwen", batch=3)
    alone, again = ingest(tmp_path / "b", images, model="tiny-qwen", batch=1)
    # 14 px patches, merged 2 x 2: one stored patch is 28 x 28 pixels
    grids = query(store, "select rows, columns from token_grid order by image_id")
    assert grids == [(h // 28, w // 28) for w, h in sizes]
    together, apart = (
        array(rows(s, o.run_id, "patch_kv"), "key") for s, o in ((store, outcome), (alone, again))
    )
    np.testing.assert_allclose(together.astype(np.float32), apart.astype(np.float32), rtol=2e-3, atol=2e-3)
    stored = rows(store, outcome.run_id, "patch_kv")
    wide = np.isin(stored["image_id"].to_numpy(), [0, 2, 4])
    assert_moments(store, together[wide].astype(np.float64).reshape(3, 2, 2, 50, -1), (5, 10))
    assert_clean(store)


def test_overviews_of_all_mosaics_share_their_statistic_and_mosaics_do_not(tmp_path: Path) -> None:
    sizes = [(200, 90)] * 3 + [(90, 200)] * 4 + [(60, 200)]
    images = pictures(tmp_path / "images", sizes)
    store, outcome = ingest(tmp_path / "store", images, model="tiny-next", view="all", layers="1")
    found = query(
        store, "select distinct grid, rows, columns, n, variance is null from key_stat order by all"
    )
    layouts = [
        (rows, columns)
        for rows, columns in query(
            store, "select rows, columns from token_grid where grid = 1 order by image_id"
        )
    ]
    assert len(set(layouts)) == 3
    mosaics = sorted({(1, *shape, layouts.count(shape), layouts.count(shape) == 1) for shape in layouts})
    assert found == [(0, 14, 14, 8, False), *mosaics]
    stored = rows(store, outcome.run_id, "patch_kv")
    per_image = [
        array(stored.filter(pc.equal(stored["image_id"], i)), "key").reshape(1, 2, -1, 32) for i in range(8)
    ]
    overviews = np.stack([keys[:, :, :196].astype(np.float64) for keys in per_image])
    assert_moments(store, overviews, (14, 14))
    tall = np.stack([per_image[i][:, :, 196:].astype(np.float64) for i in range(3, 7)])
    assert_moments(store, tall, layouts[3], grid=1)
    shares = query(
        store, "select n, count(*), count(share) from key_share(null) where grid = 1 group by n order by n"
    )
    assert [(n, share) for n, _, share in shares if n == 1] == [(1, 0)]
    assert all(count == share for n, count, share in shares if n > 1)
    assert_clean(store)


def test_sums_that_an_older_kvstore_kept_by_whole_layouts_are_made_anew(images: Path, tmp_path: Path) -> None:
    store, first = ingest(tmp_path, images, limit=2)
    path = tables.location(store.lance, first.run_id, tables.KEY_MOMENT)
    old = {"covered": [392], "shape": [[[14, 14]]], "n": [2.0], "total": [b""], "square": [b""]}
    write.replace(path, pa.table(old))
    ingest(tmp_path, images)
    keys = array(rows(store, first.run_id, "patch_kv"), "key").astype(np.float64)
    assert_moments(store, keys.reshape(3, 2, 2, side() ** 2, -1), (side(), side()))


def test_the_same_ingest_again_does_nothing(images: Path, tmp_path: Path) -> None:
    store, first = ingest(tmp_path, images)
    before = rows(store, first.run_id, "patch_kv"), query(store, "from key_stat order by all")
    store, again = ingest(tmp_path, images)
    assert (first.images, again.images, again.already) == (3, 0, 3)
    assert (rows(store, first.run_id, "patch_kv"), query(store, "from key_stat order by all")) == before
    assert query(store, "select state, images, requested from run") == [("done", 3, 3)]


def test_a_limit_extends_the_same_run(images: Path, tmp_path: Path) -> None:
    straight, one = ingest(tmp_path / "a", images)
    ingest(tmp_path / "b", images, limit=2)
    store, two = ingest(tmp_path / "b", images)
    assert (two.run_id, two.images, two.already) == (one.run_id, 1, 2)
    for kind in ("patch_kv", "pooled_kv", "patch_input"):
        assert rows(store, two.run_id, kind) == rows(straight, one.run_id, kind)
    stat = "select * exclude (run_id) from key_stat order by all"
    np.testing.assert_allclose(np.array(query(store, stat)), np.array(query(straight, stat)), rtol=1e-9)


def test_other_inputs_are_another_run_and_a_taken_name_is_refused(images: Path, tmp_path: Path) -> None:
    store, one = ingest(tmp_path, images, limit=1)
    _, other = ingest(tmp_path, images, limit=1, layers="2")
    assert other.run_id == f"{one.run_id}-2"
    with pytest.raises(UsageError, match=r"has other inputs \(layers\)"):
        ingest(tmp_path, images, limit=1, layers="0", run=one.run_id)
    assert len(store.runs()) == 2


def test_a_full_device_names_the_remedy(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Engine, "run", full)
    with pytest.raises(UsageError, match="out of memory; try --batch"):
        ingest(tmp_path / "store", images)
