"""Every model family against the real processor and the model's own image features."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kvstore import models, prompting, recipes
from kvstore.contracts import Layout
from kvstore.errors import ImageError
from tests import tiny

SIZES = [
    (640, 480), (480, 640), (2000, 300), (300, 2000), (37, 911), (911, 37), (384, 384), (1000, 1000), (1, 1),
    (2, 3), (112, 112), (113, 115), (114, 228), (500, 333), (333, 500), (1333, 800), (799, 1201), (100, 1500),
    (1920, 1080), (3000, 2000), (101, 97), (640, 427), (427, 640), (228, 684), (1023, 77),
]  # fmt: skip
#: sha256 over names and bytes of each untrained tiny model's weights, in order of the names
WEIGHTS = {
    "tiny-onevision": "d4ff51085ede8203ba76f3417adbb78e1ca958ec23f8f749534c3f424471cb60",
    "tiny-next": "e4c62626c4600f9e0caaa7cab6d9bfadf5409f0a4e9fc2efa73a15dcef3d9edd",
    "tiny-qwen": "d162810aa91360dd4b0addcf059c02a0912b8a2e34d42b9e6d4c9526dcc41b6e",
}


def real_count(processor: Any, size: tuple[int, int]) -> int:
    """Image tokens by the real processor's own arithmetic."""
    return int(processor._get_num_multimodal_tokens(image_sizes=[(size[1], size[0])])["num_image_tokens"][0])


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_token_count_is_the_processors(name: str, size: tuple[int, int]) -> None:
    model = tiny.loaded(name)
    layout = model.family.layout(model.config, model.image_processor, size, "all")
    assert layout.tokens == real_count(tiny.processor(name), size)


def full_size(name: str) -> tuple[Any, Any, Any]:
    """Configuration, image processor and processor of the genuine sizes (no weights)."""
    import transformers as t

    tokenizer = tiny.loaded(name).tokenizer
    if name == "tiny-onevision":
        images = t.LlavaOnevisionImageProcessorPil()
        settings = {"num_image_tokens": 729, "vision_feature_select_strategy": "full"}
        return t.LlavaOnevisionConfig(), images, type(tiny.processor(name))(images, tokenizer, **settings)
    if name == "tiny-next":
        images = t.LlavaNextImageProcessorPil(
            size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
        )
        settings = {"patch_size": 14, "num_additional_image_tokens": 1}
        settings["vision_feature_select_strategy"] = "default"
        return t.LlavaNextConfig(), images, t.LlavaNextProcessor(images, tokenizer, **settings)
    images = t.Qwen2VLImageProcessorPil()
    return t.Qwen2_5_VLConfig(), images, type(tiny.processor(name))(images, tokenizer)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_token_count_at_the_genuine_sizes(name: str) -> None:
    family = tiny.loaded(name).family
    config, images, processor = full_size(name)
    counts = [family.layout(config, images, size, "all").tokens for size in SIZES]
    assert counts == [real_count(processor, size) for size in SIZES]


def test_base_view_of_the_genuine_sizes() -> None:
    grids = {}
    for name in ("tiny-onevision", "tiny-next"):
        config, images, _ = full_size(name)
        grids[name] = tiny.loaded(name).family.layout(config, images, (640, 480), "base").grids[0]
    assert (grids["tiny-onevision"].rows, grids["tiny-onevision"].columns) == (27, 27)
    # 27 patches of 14 px are 378 of the tile's 384 px
    assert grids["tiny-onevision"].box == pytest.approx((0, 0, 640 * 378 / 384, 480 * 378 / 384))
    assert (grids["tiny-next"].rows, grids["tiny-next"].box) == (24, (0, 0, 640, 480))


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("size", [(640, 480), (37, 911), (1, 1)], ids=str)
def test_prompt_head_and_image_tokens_are_the_processors(name: str, size: tuple[int, int]) -> None:
    model, processor = tiny.loaded(name), tiny.processor(name)
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it a dog?"}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    ids = processor(text=text, images=tiny.noise(size), return_tensors="pt").input_ids[0].tolist()
    head = prompting.prompt_ids(model)
    layout = model.family.layout(model.config, model.image_processor, size, "all")
    token = model.image_token_id
    assert ids[: len(head) + layout.tokens] == head + [token] * layout.tokens
    assert ids[len(head) + layout.tokens] != token


PREFIXED = {
    "tiny-onevision": "<|im_start|>user  A cat. <image>\nWhat?<|im_end|>",
    "tiny-next": "{system}<|start_header_id|>user<|end_header_id|>\n\n A cat. <image>\nWhat?<|eot_id|>",
    "tiny-qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n A cat. "
    "<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n",
}
SYSTEM = (
    "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. You are "
    "able to understand the visual content that the user provides, and assist the user with a variety of "
    "tasks using natural language.<|eot_id|>"
)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_prefix_stands_verbatim_right_before_the_image(name: str) -> None:
    model = tiny.loaded(name)
    text = PREFIXED[name].format(system=SYSTEM)
    ids = tiny.processor(name)(text=text, images=tiny.noise((60, 40)), return_tensors="pt").input_ids[0]
    head = ids[: ids.tolist().index(model.image_token_id)].tolist()
    assert prompting.prompt_ids(model, " A cat. ") == head
    assert text.startswith(prompting.prompt(model, " A cat. "))


def test_begin_of_text_is_there_once_where_the_tokenizer_puts_it() -> None:
    model = tiny.loaded("tiny-next")
    assert prompting.prompt_ids(model).count(model.tokenizer.bos_token_id) == 1
    assert prompting.prompt_ids(model)[0] == model.tokenizer.bos_token_id


def features(model: models.Loaded, name: str, images: list[Any]) -> list[torch.Tensor]:
    """The model's own image features of the real processor's output."""
    token = model.tokenizer.convert_ids_to_tokens(model.image_token_id)
    made = tiny.processor(name)(text=[token] * len(images), images=images, return_tensors="pt", padding=True)
    sizes = {key: made[key] for key in ("image_sizes", "image_grid_thw") if key in made}
    with torch.no_grad():
        return list(model.model.model.get_image_features(made["pixel_values"], **sizes).pooler_output)


def encode(model: models.Loaded, images: list[Any], view: str, layers: list[int]) -> Any:
    batch = [model.family.preprocess(model.config, model.image_processor, each, view) for each in images]
    with torch.no_grad():
        return model.family.encode(model.model, batch, layers), [item.layout for item in batch]


@pytest.mark.parametrize("name", tiny.NAMES)
def test_all_view_is_bit_for_bit_the_models_own_features(name: str) -> None:
    model = tiny.loaded(name)
    images = [tiny.noise((320, 240), 1), tiny.noise((90, 400), 2)]
    encoded, layouts = encode(model, images, "all", [])
    expected = features(model, name, images)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(encoded.tokens, expected, strict=True))
    assert [len(tokens) for tokens in encoded.tokens] == [layout.tokens for layout in layouts]


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next"])
def test_base_view_is_the_overview_of_the_whole(name: str) -> None:
    model, image = tiny.loaded(name), tiny.noise((320, 240))
    encoded, layouts = encode(model, [image], "base", [2])
    assert layouts[0].tokens == 196
    torch.testing.assert_close(encoded.tokens[0], features(model, name, [image])[0][:196], rtol=0, atol=1e-5)
    assert encoded.encoder[0][2].shape == (196, 128)


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next"])
@pytest.mark.parametrize("size", [(640, 480), (37, 911), (1, 1), (114, 114), (1, 4000)], ids=str)
def test_base_pixels_are_bit_for_bit_the_processors_first_tile(name: str, size: tuple[int, int]) -> None:
    model, image = tiny.loaded(name), tiny.noise(size)
    mine = model.family.preprocess(model.config, model.image_processor, image, "base").pixels
    theirs = model.image_processor(images=image, return_tensors="pt")["pixel_values"][0, :1]
    assert mine.dtype == torch.float32
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next"])
def test_encoder_states_are_the_towers_without_class_token(name: str) -> None:
    model, image = tiny.loaded(name), tiny.noise((200, 150))
    encoded, _ = encode(model, [image], "base", [0, 3, 4])
    pixels = model.image_processor(images=image, return_tensors="pt")["pixel_values"][0, :1]
    with torch.no_grad():
        states = model.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    for layer in (0, 3, 4):
        assert torch.equal(encoded.encoder[0][layer], states[layer][0, -196:])


def test_qwen_encoder_states_lie_on_the_token_grid() -> None:
    model, image = tiny.loaded("tiny-qwen"), tiny.noise((420, 280))
    encoded, layouts = encode(model, [image], "all", [0])
    pixels = model.image_processor(images=image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        patches = model.model.model.visual.patch_embed(pixels)
    # the processor lays the four patches of a merged block side by side, in token order
    torch.testing.assert_close(encoded.encoder[0][0], patches.view(-1, 4, 128).mean(1))
    assert (layouts[0].grids[0].rows, layouts[0].grids[0].columns) == (
        8,
        13,
    )  # of 10 x 15, reduced to at most 120


def test_qwen_encoder_states_of_bfloat16_are_averaged_in_float32() -> None:
    model, image = models.load("tiny-qwen", "cpu", "bfloat16"), tiny.noise((420, 280))
    encoded, _ = encode(model, [image], "all", [0])
    pixels = model.image_processor(images=image, return_tensors="pt")["pixel_values"].bfloat16()
    with torch.no_grad():
        patches = model.model.model.visual.patch_embed(pixels)
    exact = patches.double().view(-1, 4, 128).mean(1)
    torch.testing.assert_close(encoded.encoder[0][0].double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_a_batch_encodes_as_its_images_do_alone(name: str) -> None:
    model = tiny.loaded(name)
    images = [tiny.noise((200, 150), 1), tiny.noise((90, 300), 2), tiny.noise((64, 64), 3)]
    together, _ = encode(model, images, "base", [2])
    for index, image in enumerate(images):
        alone, _ = encode(model, [image], "base", [2])
        # float32 sums of a few hundred terms in another order
        torch.testing.assert_close(together.tokens[index], alone.tokens[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(together.encoder[index][2], alone.encoder[0][2], rtol=0, atol=1e-5)


def cell(layout: Layout, grid: int, row: int, column: int) -> tuple[int, int, int, int]:
    """Whole pixels of one patch, by its grid's box."""
    area = layout.grids[grid]
    x0, y0, x1, y1 = area.box
    wide, high = (x1 - x0) / area.columns, (y1 - y0) / area.rows
    edges = (x0 + column * wide, y0 + row * high, x0 + (column + 1) * wide, y0 + (row + 1) * high)
    return (round(edges[0]), round(edges[1]), round(edges[2]), round(edges[3]))


PAINTED = [
    ("tiny-onevision", "base", (570, 342)),
    ("tiny-onevision", "all", (342, 228)),  # a resolution of the processor: nothing is resized
    ("tiny-onevision", "all", (500, 260)),  # padded, unpadded
    ("tiny-onevision", "all", (684, 684)),  # 36 tiles reduced to the patches of nine
    ("tiny-next", "base", (448, 300)),
    ("tiny-next", "all", (224, 224)),
    ("tiny-next", "all", (640, 480)),
    ("tiny-next", "all", (150, 600)),
    ("tiny-qwen", "all", (560, 392)),
    ("tiny-qwen", "base", (613, 401)),
]


@pytest.mark.parametrize(("name", "view", "size"), PAINTED)
def test_painting_a_patch_changes_its_own_encoder_input_most(
    name: str, view: str, size: tuple[int, int]
) -> None:
    model = tiny.loaded(name)
    (plain, layouts) = encode(model, [tiny.painted(size)], view, [0])
    layout, first = layouts[0], 0
    for number, grid in enumerate(layout.grids):
        for down, across in ((0.15, 0.85), (0.5, 0.5), (0.8, 0.3)):
            row, column = int(grid.rows * down), int(grid.columns * across)
            image = tiny.painted(size, cell(layout, number, row, column))
            changed, _ = encode(model, [image], view, [0])
            change = (changed.encoder[0][0] - plain.encoder[0][0]).norm(dim=-1)
            own = change[first : first + grid.patches]
            assert divmod(int(own.argmax()), grid.columns) == (row, column)
        first += grid.patches


def test_painting_without_resize_changes_no_other_patch() -> None:
    model = tiny.loaded("tiny-onevision")
    size = (228, 114)
    before = model.family.preprocess(model.config, model.image_processor, tiny.painted(size), "all")
    x0, y0, x1, y1 = cell(before.layout, 1, 5, 20)
    # the tile's strip of 2 px beyond its last patch shifts the box by less than 2 px
    image = tiny.painted(size, (x0 + 2, y0 + 2, x1 - 2, y1 - 2))
    after = model.family.preprocess(model.config, model.image_processor, image, "all")
    tiles = (after.pixels - before.pixels)[1:, :, :112, :112].abs()
    patches = tiles.reshape(2, 3, 14, 8, 14, 8).amax(dim=(1, 3, 5))
    # row 5 and column 20 of the mosaic: the second tile; there row 5, column 6
    assert patches.nonzero().tolist() == [[1, 5, 6]]


def test_qwen_positions_count_rows_and_columns_from_the_prompt_on() -> None:
    model = tiny.loaded("tiny-qwen")
    batch = [
        model.family.preprocess(model.config, model.image_processor, tiny.noise(size), "base")
        for size in ((280, 196), (196, 196))
    ]
    head = prompting.prompt_ids(model)
    longest = max(item.layout.tokens for item in batch)
    rows = [
        head + [model.image_token_id] * item.layout.tokens + [0] * (longest - item.layout.tokens)
        for item in batch
    ]
    positions = model.family.position_ids(model.model, torch.tensor(rows), batch)
    assert positions.shape == (3, 2, len(head) + longest)
    for index, item in enumerate(batch):
        grid, start = item.layout.grids[0], len(head)
        row, column = torch.arange(grid.patches) // grid.columns, torch.arange(grid.patches) % grid.columns
        assert positions[:, index, :start].tolist() == [list(range(start))] * 3
        image = positions[:, index, start : start + grid.patches]
        assert torch.equal(image, torch.stack([torch.zeros_like(row), row, column]) + start)


def test_qwen_positions_are_those_of_the_models_own_forward() -> None:
    model = tiny.loaded("tiny-qwen")
    image = tiny.noise((300, 200))
    made = tiny.processor("tiny-qwen")(
        text="Look: <|vision_start|><|image_pad|><|vision_end|> What?", images=image, return_tensors="pt"
    )
    expected, _ = model.model.model.get_rope_index(
        made.input_ids, mm_token_type_ids=made.mm_token_type_ids, image_grid_thw=made.image_grid_thw
    )
    inputs = model.family.preprocess(model.config, model.image_processor, image, "base")
    assert torch.equal(model.family.position_ids(model.model, made.input_ids, [inputs]), expected)


#: (short side, long side), lying and standing, among them those of which a mosaic keeps no row or no column
EXTREME = [
    size
    for short in (1, 2, 3, 5, 8, 13)
    for long in (100, 113, 200, 333, 500, 777, 1000, 1999, 4000)
    for size in ((short, long), (long, short))
]


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next"])
def test_token_count_of_extreme_sizes_is_the_processors(name: str) -> None:
    family = tiny.loaded(name).family
    config, images, genuine = full_size(name)
    small = tiny.loaded(name)
    alone = 0
    for size in EXTREME:
        made = family.layout(config, images, size, "all")
        assert made.tokens == real_count(genuine, size), size
        tiny_made = family.layout(small.config, small.image_processor, size, "all")
        assert tiny_made.tokens == real_count(tiny.processor(name), size), size
        alone += len(tiny_made.grids) == 1
    assert alone > len(EXTREME) // 2  # else this test is of no extremes


def test_a_size_beyond_qwen_is_refused_with_the_reason() -> None:
    model = tiny.loaded("tiny-qwen")
    with pytest.raises(ImageError, match="1 x 4000") as caught:
        model.family.layout(model.config, model.image_processor, (1, 4000), "all")
    assert caught.value.reason == "aspect-ratio"


@pytest.mark.parametrize("name", tiny.NAMES)
def test_tiny_weights_are_the_same_on_every_machine(name: str) -> None:
    digest = hashlib.sha256()
    for key, weight in sorted(load_file(tiny.loaded(name).folder / "model.safetensors").items()):
        digest.update(key.encode())
        digest.update(weight.numpy().tobytes())
    assert digest.hexdigest() == WEIGHTS[name]


@pytest.mark.parametrize("family", sorted(recipes.listing("ingest/models")))
def test_tiny_models_files_are_made_the_same_twice_and_leave_the_generator_alone(
    family: str, tmp_path: Path
) -> None:
    recipe = recipes.load("ingest/models", family)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        recipe.tiny(folder)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_tiny_attention_is_neither_flat_nor_a_single_peak(name: str) -> None:
    model = tiny.loaded(name)
    embeds = encode(model, [tiny.noise((200, 150))], "base", [])[0].tokens[0][None]
    language = model.model.model.language_model
    language.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            made = language(inputs_embeds=embeds, output_attentions=True, use_cache=False)
    finally:
        language.set_attn_implementation("sdpa")
    last = torch.stack([layer[0, :, -1] for layer in made.attentions])  # [layers, heads, tokens]
    effective = last.double().pow(-last.double()).prod(-1)  # exp of the entropy: tokens attended to
    assert 2 < float(effective.mean()) < 0.95 * last.shape[-1]
