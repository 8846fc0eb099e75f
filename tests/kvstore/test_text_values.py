"""Text values against plain `transformers`, for every family; each prefilled once, dropped with its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kvstore import models, prompting, text_values
from kvstore.errors import ModelError, UsageError
from kvstore.store import Store
from tests import tiny
from tests.ingesting import assert_clean, ingest, pictures, query
from tests.stores import name_versions

LAYERS = (1, 3)
SITES = ("value", "key", "input")
#: Of different lengths, so that a batch pads.
TEXTS = ["bird", "the red bird at the left of two", "a cup"]
#: Half a unit in float16's last place, and the float32 sums of another order of batch (see test_capture).
ROUNDING = {"rtol": 2**-11, "atol": 1e-4}


def stored(tmp_path: Path, name: str, sites: tuple[str, ...] = SITES, limit: int | None = None) -> Store:
    """A store with a run of two small images by an untrained model."""
    images = pictures(tmp_path / "images", [(40, 40), (50, 40)])
    wanted = {"model": f"{name}-untrained", "sites": sites, "limit": limit, "run": "run"}
    return ingest(tmp_path / "store", images, **wanted)[0]


def encoders(tmp_path: Path, name: str) -> Store:
    """A store with a run of two small images by a vision encoder alone, untrained or a folder's."""
    images = pictures(tmp_path / "images", [(40, 40), (50, 40)])
    model = name if Path(name).is_dir() else f"{name}-untrained"
    return ingest(tmp_path / "store", images, model=model, layers=None, sites=("encoder",), run="run")[0]


def of_encoder(store: Store, layer: int = 0) -> np.ndarray[Any, Any]:
    """The stored vectors of `TEXTS`: [texts, width]."""
    assert text_values.fill(store, "run", TEXTS, "cpu") == 3
    (vectors,) = text_values.read(store, "run", "encoder", layer, TEXTS)
    return vectors


def plain(loaded: models.Loaded, text: str) -> tuple[Any, torch.Tensor]:
    """The cache of an ordinary forward pass of the prompt that ends with a text, and its embeddings."""
    prompt = prompting.prompt(loaded, text).removesuffix(loaded.family.IMAGE_START)
    assert prompt.endswith(text)
    ids = loaded.tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        cache = loaded.model(input_ids=ids, use_cache=True).past_key_values
    return cache, loaded.model.get_input_embeddings()(ids)[0]


@pytest.mark.parametrize("name", tiny.NAMES)
def test_text_values_are_the_last_tokens_in_an_ordinary_forward(tmp_path: Path, name: str) -> None:
    store, loaded = stored(tmp_path, name), tiny.loaded(name)
    assert text_values.fill(store, "run", TEXTS, "cpu") == 3
    for number, text in enumerate(TEXTS):
        cache, embeds = plain(loaded, text)
        for layer in LAYERS:
            for site, array in (("key", cache.layers[layer].keys), ("value", cache.layers[layer].values)):
                found = text_values.read(store, "run", site, layer, TEXTS)[:, number]
                np.testing.assert_allclose(found, array[0, :, -1].numpy(), **ROUNDING)
        found = text_values.read(store, "run", "input", 0, TEXTS)[0, number]
        np.testing.assert_allclose(found, embeds[-1].numpy(), **ROUNDING)
    assert_clean(store)


def test_views_show_every_text_and_say_what_is_not_stored(tmp_path: Path) -> None:
    store = stored(tmp_path, "tiny-onevision", sites=("value",))
    text_values.fill(store, "run", TEXTS, "cpu")
    found = query(
        store,
        "select run_id, text, count(*), count(distinct (layer, head)), count(value), count(key)"
        " from text_kv group by all order by text",
    )
    heads = tiny.loaded("tiny-onevision").description["kv_heads"]
    n = len(LAYERS) * heads
    assert found == [("run", text, n, n, n, 0) for text in sorted(TEXTS)]
    assert query(store, "from text_input") == []
    (value,) = query(store, "select value from text_kv where text = 'bird' and layer = 3 and head = 1")[0]
    np.testing.assert_array_equal(value, text_values.read(store, "run", "value", 3, ["bird"])[1, 0])


def test_only_missing_texts_are_prefilled_and_without_any_no_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stored(tmp_path, "tiny-onevision")
    monkeypatch.setattr(text_values, "CHUNK", 1)
    assert text_values.fill(store, "run", TEXTS[:2], "cpu") == 2
    first = text_values.read(store, "run", "value", 3, TEXTS[:2])
    assert text_values.fill(store, "run", TEXTS, "cpu") == 1
    np.testing.assert_array_equal(text_values.read(store, "run", "value", 3, TEXTS[:2]), first)
    monkeypatch.setattr(models, "load", None)
    catalog = store.catalog.stat().st_mtime_ns
    assert text_values.fill(store, "run", TEXTS, "cpu") == 0
    assert store.catalog.stat().st_mtime_ns == catalog
    store.optimize()
    assert text_values.fill(store, "run", TEXTS, "cpu") == 0
    np.testing.assert_array_equal(text_values.read(store, "run", "value", 3, TEXTS[:2]), first)
    assert query(store, "select count(distinct text) from text_kv") == [(3,)]
    assert_clean(store)


def test_a_kill_between_two_commits_leaves_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first table of the second text; the catalog knows of nothing yet."""
    store = stored(tmp_path, "tiny-onevision")
    monkeypatch.setattr(text_values, "CHUNK", 1)
    with monkeypatch.context() as broken:
        calls, real = iter(range(10)), text_values._append

        def dies(*args: Any) -> None:
            if next(calls) == 3:
                raise KeyboardInterrupt
            real(*args)

        broken.setattr(text_values, "_append", dies)
        with pytest.raises(KeyboardInterrupt):
            text_values.fill(store, "run", TEXTS, "cpu")
    assert query(store, "from text_kv") == []
    assert text_values.fill(store, "run", TEXTS, "cpu") == 2
    assert query(store, "select text, count(*) from text_input group by all order by all") == [
        (text, 1) for text in sorted(TEXTS)
    ]
    assert_clean(store)


def test_a_check_finds_texts_that_are_not_whole(tmp_path: Path) -> None:
    import lance

    store = stored(tmp_path, "tiny-onevision")
    text_values.fill(store, "run", TEXTS, "cpu")
    path = str(store.lance / "run.text_kv.lance")
    whole = lance.dataset(path).to_table()
    made = lance.write_dataset(whole.take([0, 0, *range(2, len(whole))]), path, mode="overwrite")
    name_versions(store, "run", {"text_kv": made.version})
    (found,) = [finding for finding in store.check() if not finding.ok]
    assert (found.check, found.rows) == ("text_kv_complete", 1)


@pytest.mark.parametrize(("name", "table"), [("tiny-onevision", "text_input"), ("tiny-clip", "text_encoder")])
def test_a_check_finds_a_text_that_is_there_twice(tmp_path: Path, name: str, table: str) -> None:
    import lance

    store = stored(tmp_path, name) if name == "tiny-onevision" else encoders(tmp_path, name)
    text_values.fill(store, "run", TEXTS, "cpu")
    path = str(store.lance / f"run.{table}.lance")
    made = lance.write_dataset(lance.dataset(path).to_table().take([0, 0, 1, 2]), path, mode="overwrite")
    name_versions(store, "run", {table: made.version})
    (found,) = [finding for finding in store.check() if not finding.ok]
    assert (found.check, found.rows) == ("text_once", 1)


def test_texts_go_with_their_run(tmp_path: Path) -> None:
    store = stored(tmp_path, "tiny-onevision")
    text_values.fill(store, "run", TEXTS, "cpu")
    assert list(store.lance.glob("*.text_*"))
    store.drop("run", now=True)
    assert list(store.lance.glob("**/*.lance")) == []
    assert query(store, "from text_kv") == []


def test_texts_outlive_a_resumed_ingest(tmp_path: Path) -> None:
    store = stored(tmp_path, "tiny-onevision", limit=1)
    text_values.fill(store, "run", TEXTS, "cpu")
    before = query(store, "select text, layer, head, value from text_kv order by all")
    stored(tmp_path, "tiny-onevision")
    assert query(store, "select images from run") == [(2,)]
    assert query(store, "select text, layer, head, value from text_kv order by all") == before
    assert_clean(store)


def test_another_revision_and_the_images_placeholder_are_refused(tmp_path: Path) -> None:
    store = stored(tmp_path, "tiny-onevision")
    with pytest.raises(UsageError, match="holds '<image>'"):
        text_values.fill(store, "run", ["an <image>"], "cpu")
    with store.publish() as con:
        con.execute("update model set revision = 'another-revision'")
    with pytest.raises(ModelError, match=r"revision another-revi of 'tiny-onevision-untrained'.*--run"):
        text_values.fill(store, "run", ["bird"], "cpu")
    assert not list(store.lance.glob("*.text_*"))


def test_a_batch_holds_few_tokens() -> None:
    rows = [[0] * n for n in (1, 2, 1500, 2000, 2000, 5000)]
    assert [[len(row) for row in batch] for batch in text_values._batches(rows)] == [
        [1, 2],
        [1500, 2000],
        [2000],
        [5000],
    ]


def test_siglips_texts_are_its_text_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded to the tower's 48 tokens, whatever is read together; at any layer the same."""
    monkeypatch.setattr(text_values, "AT_ONCE", 2)
    store, loaded = encoders(tmp_path, "tiny-encoder"), tiny.loaded("tiny-encoder")
    found = of_encoder(store, layer=3)
    for number, text in enumerate(TEXTS):
        ids = loaded.tokenizer(text, padding="max_length", max_length=48, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            (features,) = loaded.model.get_text_features(input_ids=ids).pooler_output
        np.testing.assert_allclose(found[number], features.numpy(), **ROUNDING)
    assert query(store, "select text, len(feature) from text_encoder order by all") == [
        (text, 128) for text in sorted(TEXTS)
    ]
    assert query(store, "from text_kv") == query(store, "from text_input") == []
    assert_clean(store)


def test_siglip_reads_in_lower_case_and_cuts_off_what_is_too_long() -> None:
    loaded = tiny.loaded("tiny-encoder")
    short, long = "red " * 47 + "red", "red " * 100  # " red" is one token
    with torch.no_grad():
        found = loaded.family.texts(loaded.model, loaded.tokenizer, ["A Cup", "a cup", short, long])
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[2], found[3])
    assert not torch.allclose(found[0], found[2], atol=0.1)


def test_a_patch_has_with_clips_texts_the_dot_product_of_its_projection_with_their_embeddings(
    tmp_path: Path,
) -> None:
    store, loaded = encoders(tmp_path, "tiny-clip"), tiny.loaded("tiny-clip")
    found = torch.from_numpy(of_encoder(store).astype(np.float32))
    state = torch.randn(5, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for number, text in enumerate(TEXTS):
            ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
            (embedding,) = loaded.model.get_text_features(input_ids=ids).pooler_output
            projected = loaded.model.visual_projection(state)
            torch.testing.assert_close(state @ found[number], projected @ embedding, rtol=2e-3, atol=2e-2)
    apart = (found[:, None] - found[None]).norm(dim=-1)[np.triu_indices(3, 1)]
    assert apart.min() > 0.1 * found.norm(dim=-1).max()  # texts end with a token that has read them
    assert_clean(store)


def test_an_encoder_without_a_text_tower_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Of a family that has none, and of a family that has one, without it."""
    store = encoders(tmp_path / "dinov2", "tiny-dinov2")
    with pytest.raises(UsageError, match=r"'tiny-dinov2-untrained' \(Dinov2Model\) has no text tower"):
        text_values.fill(store, "run", TEXTS, "cpu")
    vision, whole = tmp_path / "vision", tiny.loaded("tiny-encoder")
    whole.model.vision_model.save_pretrained(vision)
    whole.image_processor.save_pretrained(vision)
    store = encoders(tmp_path / "siglip", str(vision))
    with pytest.raises(UsageError, match=r"'vision' \(SiglipVisionModel\) has no text tower.*tiny-encoder"):
        text_values.fill(store, "run", TEXTS, "cpu")
    assert not list(store.lance.glob("*.text_*"))


def test_texts_of_a_multimodal_models_own_encoder_are_its_language_models(tmp_path: Path) -> None:
    store = stored(tmp_path, "tiny-onevision", sites=("value", "encoder"))
    assert text_values.fill(store, "run", TEXTS, "cpu") == 3
    assert {path.name for path in store.lance.glob("*.text_*")} == {"run.text_kv.lance"}
