"""Vision encoders alone: their patches in the image, and their hidden states against plain transformers."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t

from kvstore import model_names, models, pretrained, probes, prompting
from kvstore.contracts import Layout
from kvstore.errors import ImageError, ModelError, UsageError
from kvstore.prefill.forward import Engine
from kvstore.store import Store
from tests import tiny
from tests.ingesting import array, assert_clean, ingest, pictures, query, rows

SIZES = ((150, 90), (64, 120))
#: Families' own tiny models; untrained here.
BUILT_IN = ("tiny-clip", "tiny-dinov2", "tiny-encoder")
_FOLDERS = tempfile.TemporaryDirectory()
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def folder(name: str) -> str:
    """What `kvstore.models` loads: a built-in model's name, or the folder of one made here."""
    return f"{name}-untrained" if name in BUILT_IN else str(_made(name))


@cache
def _made(name: str) -> Path:
    model, processor = _parts(name)
    made = Path(_FOLDERS.name, name)
    model.save_pretrained(made)
    processor.save_pretrained(made)
    return made


def _parts(name: str) -> tuple[Any, Any]:
    """Model and image processor of 32 pixels in patches of 8; NaFlex: at most 64 patches of 8."""
    square, shortest = {"height": 32, "width": 32}, {"shortest_edge": 32}
    wide = {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "siglip vision":
            config = t.SiglipVisionConfig(**_SIZES, **wide)
            return t.SiglipVisionModel(config), t.SiglipImageProcessorPil(size=square)
        if name == "siglip2 naflex":
            tower = {**_SIZES, "intermediate_size": 64, "patch_size": 8, "num_patches": 64}
            text = {
                **_SIZES,
                "intermediate_size": 64,
                "vocab_size": 100,
                "bos_token_id": 1,
                "eos_token_id": 2,
            }
            config = t.Siglip2Config(vision_config=tower, text_config=text)
            return t.Siglip2Model(config), t.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=64)
        if name == "clip vision":
            config = t.CLIPVisionConfig(**_SIZES, **wide)
            return t.CLIPVisionModel(config), t.CLIPImageProcessorPil(size=shortest, crop_size=square)
        cropped = t.BitImageProcessorPil(size=shortest, crop_size=square)
        if name == "dinov2 registers":
            config = t.Dinov2WithRegistersConfig(**_SIZES, image_size=64, patch_size=8, num_register_tokens=4)
            return t.Dinov2WithRegistersModel(config), cropped
        # DINOv3's own image processor needs torchvision
        config = t.DINOv3ViTConfig(**_SIZES, **wide, num_register_tokens=4)
        return t.DINOv3ViTModel(config), cropped


@cache
def loaded(name: str) -> models.Loaded:
    return models.load(folder(name), "cpu", "float32")


def layout(model: models.Loaded, size: tuple[int, int]) -> Layout:
    found: Layout = model.family.layout(model.config, model.image_processor, size, "base")
    return found


def states(name: str, image: Any) -> list[torch.Tensor]:
    """Plain transformers: every hidden state of one image, tokens that are no patches included."""
    model = t.AutoModel.from_pretrained(loaded(name).folder, dtype=torch.float32).eval()
    with torch.no_grad():
        made = getattr(model, "vision_model", model)(
            **loaded(name).image_processor(image, return_tensors="pt"), output_hidden_states=True
        )
    return [state[0] for state in made.hidden_states]


def encode(name: str, images: list[Any], layers: list[int]) -> list[dict[int, torch.Tensor]]:
    model = loaded(name)
    batch = [model.family.preprocess(model.config, model.image_processor, each, "base") for each in images]
    with torch.no_grad():
        found: list[dict[int, torch.Tensor]] = model.family.encode(model.model, batch, layers).encoder
    return found


#: Tokens before the patches: a class token, and registers.
BEFORE = {
    "tiny-encoder": 0,
    "tiny-clip": 1,
    "tiny-dinov2": 1,
    "siglip vision": 0,
    "siglip2 naflex": 0,
    "clip vision": 1,
    "dinov2 registers": 5,
    "dinov3": 5,
}


@pytest.mark.parametrize("name", BEFORE)
def test_hidden_states_are_those_of_plain_transformers_without_what_is_no_patch(name: str) -> None:
    images = [tiny.noise(size, seed) for seed, size in enumerate(SIZES)]
    for image, found in zip(images, encode(name, images, [0, 2]), strict=True):
        patches, plain = layout(loaded(name), image.size).patches, states(name, image)
        for layer in (0, 2):
            expected = plain[layer][BEFORE[name] :][:patches]  # NaFlex pads behind the patches
            assert found[layer].shape == expected.shape == (patches, 128 if "tiny" in name else 32)
            # float32 sums in a batch of two
            torch.testing.assert_close(found[layer], expected, rtol=0, atol=1e-5)


# -------------------------------------------------------------------------------- grids and pixels


def test_a_squeezed_image_is_seen_whole_but_for_the_strip_of_no_patch() -> None:
    grid = layout(loaded("tiny-encoder"), (640, 480)).grids[0]
    assert (grid.rows, grid.columns) == (14, 14)
    # 14 patches of 8 px are 112 of the tile's 114 px
    assert grid.box == pytest.approx((0, 0, 640 * 112 / 114, 480 * 112 / 114))


def test_a_cropped_image_is_seen_where_the_crop_lies() -> None:
    grid = layout(loaded("tiny-clip"), (640, 480)).grids[0]
    # resized to 149 x 112 (149.33 cut off); (149 - 112) // 2 = 18 columns are cut off on the left
    assert grid.box == pytest.approx((18 * 640 / 149, 0, 130 * 640 / 149, 480))
    grid = layout(loaded("tiny-dinov2"), (480, 640)).grids[0]
    # resized to 128 x 170, cropped to 112 x 112 at (8, 29)
    assert grid.box == pytest.approx((8 * 480 / 128, 29 * 640 / 170, 120 * 480 / 128, 141 * 640 / 170))


def test_grids_of_the_genuine_sizes() -> None:
    square = {"height": 384, "width": 384}
    so400m = t.SiglipVisionConfig(image_size=384, patch_size=14), t.SiglipImageProcessorPil(size=square)
    crop = {"height": 336, "width": 336}
    clip = t.CLIPVisionConfig(image_size=336, patch_size=14)
    clip336 = clip, t.CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=crop)
    dino = t.Dinov2Config(patch_size=14), t.BitImageProcessorPil(size={"shortest_edge": 256})
    found = [
        loaded(name).family.layout(*parts, (1000, 500), "base").grids[0]
        for name, parts in (("tiny-encoder", so400m), ("tiny-clip", clip336), ("tiny-dinov2", dino))
    ]
    assert [(grid.rows, grid.columns) for grid in found] == [(27, 27), (24, 24), (16, 16)]
    assert found[0].box == pytest.approx((0, 0, 1000 * 378 / 384, 500 * 378 / 384))
    assert found[1].box == pytest.approx((250, 0, 750, 500))  # the square in the middle
    # of 512 x 256, the middle 224 x 224: 144 to 368 across, 16 to 240 down
    assert found[2].box == pytest.approx((144 / 0.512, 16 / 0.512, 368 / 0.512, 240 / 0.512))


def test_naflex_keeps_the_aspect_ratio_within_its_number_of_patches() -> None:
    grid = layout(loaded("siglip2 naflex"), (300, 150)).grids[0]
    # 80 x 40 pixels are 10 x 5 patches of 8; any larger, 11 x 6 of them would be more than 64
    assert (grid.rows, grid.columns) == (5, 10)
    made = loaded("siglip2 naflex").image_processor(tiny.noise((300, 150)), return_tensors="pt")
    assert made["spatial_shapes"][0].tolist() == [5, 10]
    assert grid.box == (0, 0, 300, 150)


def test_an_image_smaller_than_the_crop_is_surrounded_by_zeros() -> None:
    model = loaded("tiny-clip")
    processor = t.CLIPImageProcessorPil(
        do_resize=False, do_normalize=False, crop_size={"height": 112, "width": 112}
    )
    white = tiny.painted((80, 61), (0, 0, 80, 61))
    made = model.family.preprocess(model.config, processor, white, "base")
    bright = made.pixels[0].nonzero()
    x0, y0 = -made.layout.grids[0].box[0], -made.layout.grids[0].box[1]
    assert bright.min(0).values.tolist() == [y0, x0] == [26, 16]
    assert made.layout.grids[0].box[2:] == (96, 86)


def test_an_image_too_long_to_be_resized_is_refused() -> None:
    with pytest.raises(ImageError, match="1 x 9000 pixels") as caught:
        layout(loaded("tiny-clip"), (1, 9000))
    assert caught.value.reason == "aspect-ratio"
    assert layout(loaded("tiny-encoder"), (1, 9000)).patches == 196


PAINTED = [
    ("tiny-encoder", (570, 342)),
    ("tiny-encoder", (100, 260)),
    ("tiny-clip", (448, 300)),
    ("tiny-clip", (150, 600)),
    ("tiny-dinov2", (640, 480)),
    ("tiny-dinov2", (200, 512)),
    ("siglip2 naflex", (300, 200)),
]


@pytest.mark.parametrize(("name", "size"), PAINTED)
def test_painting_a_patch_changes_its_own_embedding_and_none_but_its_neighbours(
    name: str, size: tuple[int, int]
) -> None:
    grid = layout(loaded(name), size).grids[0]
    x0, y0, x1, y1 = grid.box
    wide, high = (x1 - x0) / grid.columns, (y1 - y0) / grid.rows
    places = [
        (int(grid.rows * down), int(grid.columns * across)) for down, across in ((0.2, 0.8), (0.7, 0.3))
    ]
    images = [tiny.painted(size)]
    for row, column in places:
        corners = (x0 + column * wide, y0 + row * high, x0 + (column + 1) * wide, y0 + (row + 1) * high)
        left, top, right, bottom = (round(edge) for edge in corners)
        images.append(tiny.painted(size, (left, top, right, bottom)))
    plain, *changed = (each[0] for each in encode(name, images, [0]))
    for (row, column), state in zip(places, changed, strict=True):
        change = (state - plain).norm(dim=-1).view(grid.rows, grid.columns)
        assert divmod(int(change.argmax()), grid.columns) == (row, column)
        change[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0
        assert float(change.max()) < 1e-4  # rounding: resizing spreads a patch to its neighbours, not beyond


# ------------------------------------------------------------------------------------ whole ingests


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run of each family over the same images, at every layer; no language model is run."""
    images = pictures(tmp_path_factory.mktemp("images"), SIZES)
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "_decode", None)
        for name in BUILT_IN:
            store, outcome = ingest(root, images, model=f"{name}-untrained", layers=None, run=name)
            assert outcome.images == len(SIZES)
    return store


@pytest.mark.parametrize("name", BUILT_IN)
def test_stored_states_are_those_of_plain_transformers_at_every_layer(whole: Store, name: str) -> None:
    stored = rows(whole, name, "patch_encoder")
    found = array(stored, "feature").reshape(len(SIZES), 5, 196, 128)
    assert stored["layer"].to_numpy().reshape(found.shape[:3])[1, :, 0].tolist() == [0, 1, 2, 3, 4]
    for image, size in enumerate(SIZES):
        for layer, plain in enumerate(states(name, tiny.noise(size, image))):
            assert np.array_equal(found[image, layer], plain[BEFORE[name] :].half().numpy())


def test_the_catalog_knows_an_encoder_as_a_model_without_a_language_model(whole: Store) -> None:
    columns = "layers, query_heads, kv_heads, key_dim, value_dim, hidden_dim, encoder_layers, encoder_dim"
    assert query(whole, f"select distinct {columns} from model") == [(0, 0, 0, 0, 0, 0, 4, 128)]
    assert query(whole, "select distinct sites, layers, encoder_layers, tokens from run") == [
        (["encoder"], [], [0, 1, 2, 3, 4], 2 * 196)
    ]
    assert query(whole, "select run_id, first_position, x0 > 0 from token_grid where image_id = 0") == [
        ("tiny-clip", 0, True), ("tiny-dinov2", 0, True), ("tiny-encoder", 0, False)
    ]  # fmt: skip
    assert {path.name.split(".")[-2] for path in whole.lance.glob("*.lance")} == {
        "checksum",
        "patch_encoder",
        "patch_span",
    }
    assert_clean(whole)


def test_a_run_is_what_its_model_stores_however_it_was_asked_for(whole: Store, tmp_path: Path) -> None:
    images = pictures(tmp_path, SIZES)
    _, again = ingest(whole.root, images, model="tiny-clip-untrained", layers=None, sites=("encoder",))
    assert (again.run_id, again.already) == ("tiny-clip", 2)


def test_a_probe_works_on_an_encoder_alone(tmp_path: Path) -> None:
    store, made = ingest(
        tmp_path, tmp_path, dataset="shapes", model="tiny-encoder", layers=None,  limit=12,
        encoder_layers="0,4",
    )  # fmt: skip
    outcome = probes.find("correspondence").predict(store, probes.Request(made.run_id))
    assert outcome.made == 2
    assert query(store, "select distinct site, layer from match order by all") == [
        ("encoder", 0), ("encoder", 4), ("position", 0)
    ]  # fmt: skip
    assert_clean(store)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"sites": ("value", "encoder")}, "has no value. Leave --sites away"),
        ({"layers": "0-3"}, "Choose hidden states with --encoder-layers 0-4"),
        ({"prefix": "A cat."}, "Leave --prefix away"),
        ({"view": "all"}, "Leave --view away"),
    ],
)
def test_what_only_a_language_model_has_is_refused(tmp_path: Path, wanted: dict[str, Any], said: str) -> None:
    given = {"model": "tiny-encoder", "layers": None} | wanted
    with pytest.raises(UsageError, match=f"'tiny-encoder' is a vision encoder alone.*{said}"):
        ingest(tmp_path / "store", pictures(tmp_path / "images", SIZES[:1]), **given)


# ------------------------------------------------------------------------------- names and folders


def test_an_encoder_has_no_prompt_and_dinov2_no_tokenizer() -> None:
    with pytest.raises(
        UsageError, match="'tiny-dinov2-untrained' is a vision encoder alone and reads no prompt"
    ):
        prompting.prompt_ids(loaded("tiny-dinov2"))
    with pytest.raises(ModelError, match=r"the tokenizer in .* cannot be loaded"):
        _ = loaded("tiny-dinov2").tokenizer
    assert len(loaded("tiny-clip").tokenizer("a red fish")["input_ids"]) > 3


def test_aliases_of_encoders() -> None:
    names = {"siglip-so400m": "google/siglip-so400m-patch14-384", "dinov2-large": "facebook/dinov2-large"}
    names["clip-large"] = "openai/clip-vit-large-patch14-336"
    assert {name: model_names.resolve(name).location for name in names} == names
    near = {"google/siglip-base-patch16-224": "tiny-encoder", "openai/clip-vit-base-patch32": "tiny-clip"}
    assert {name: model_names.nearest_tiny(name) for name in near} == near


def test_settings_as_clip_itself_has_them(tmp_path: Path) -> None:
    """A class name of old, sides without names, and weights that were never published as safetensors."""
    model = loaded("clip vision")
    model.config.save_pretrained(tmp_path)
    torch.save(model.model.state_dict(), tmp_path / "pytorch_model.bin")
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    made = models.load(str(tmp_path), "cpu")
    assert type(made.image_processor) is t.CLIPImageProcessorPil
    assert layout(made, (64, 32)).grids[0].box == (16, 0, 48, 32)
    assert torch.equal(
        made.model.state_dict()["post_layernorm.bias"], model.model.state_dict()["post_layernorm.bias"]
    )
    before = made.revision
    (tmp_path / "pytorch_model.bin").write_bytes(b"other")
    assert models.load_config(str(tmp_path)).revision != before


def test_a_library_that_an_image_processor_wants_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wants:
        @staticmethod
        def from_dict(settings: object) -> None:
            raise ImportError(
                "\nX requires the Torchvision library but it was not found. Check out the\npage"
            )

    loaded("dinov3").config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "DINOv3ViTImageProcessorFast"}'
    )
    monkeypatch.setattr(pretrained, "_processor_class", lambda *_: Wants)
    with pytest.raises(
        ModelError, match=r"json cannot be loaded: X requires .* not found; install it with pip$"
    ):
        models.load_config(str(tmp_path))
