"""Model folders as they are met: half downloaded, of older versions, fine-tuned, quantised."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kvstore import models, pretrained, prompting
from kvstore.errors import ModelError
from tests import tiny
from tests.capturing import assert_as_plain, captured


@pytest.fixture(autouse=True)
def fresh_tokenizers() -> None:
    """Folders change under one path here."""
    pretrained.tokenizer.cache_clear()


def copied(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(tiny.loaded(name).folder, folder / name))


def edit(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def line(folder: Path) -> str:
    """What is said of a folder that cannot be used."""
    with pytest.raises(ModelError) as caught:
        prompting.prompt_ids(models.load(str(folder), "cpu", "float32"))
    told = str(caught.value)
    assert told.isprintable()
    assert len(told) <= 300
    assert "site-packages" not in told
    return told


# ---------------------------------------------------------------------------------------- templates


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}", "can only concatenate str"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for m in messages %}{{ m ", "unexpected end of template"),
        ("{{ messages[0].x.y }}<image>", "has no attribute 'x'"),
        ("{{ messages[0].role }}", "writes no '<image>'"),
        (b"\xe9<image>", "save it as UTF-8 text"),
    ],
)
def test_a_template_that_does_not_do_is_told(tmp_path: Path, template: Any, said: str) -> None:
    folder = copied(tmp_path, "tiny-onevision")
    path = folder / "chat_template.jinja"
    path.write_bytes(template if isinstance(template, bytes) else template.encode())
    told = line(folder)
    assert said in told
    assert "template" in told


def test_an_image_may_stand_first_of_all(tmp_path: Path) -> None:
    folder = copied(tmp_path, "tiny-onevision")
    (folder / "chat_template.jinja").write_text("<image>{{ messages[0].role }}")
    assert prompting.prompt_ids(models.load_config(str(folder))) == []
    assert_as_plain(folder, tiny.noise((150, 90)))


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.json"])
def test_of_named_templates_the_default_is_meant(tmp_path: Path, file: str) -> None:
    folder = copied(tmp_path, "tiny-onevision")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    named: Any = {"default": template, "tool_use": "x"}
    if file == "tokenizer_config.json":
        named = [{"name": name, "template": text} for name, text in named.items()]
        edit(folder / file, chat_template=named)
    else:
        (folder / file).write_text(json.dumps({"chat_template": named}))
    expected = prompting.prompt_ids(tiny.loaded("tiny-onevision"))
    assert prompting.prompt_ids(models.load_config(str(folder))) == expected


def test_an_image_token_that_the_tokenizer_lacks_is_told(tmp_path: Path) -> None:
    folder = copied(tmp_path, "tiny-onevision")
    for token in (70000, -3):
        edit(folder / "config.json", image_token_index=token)
        assert f"token {token}, which config.json" in line(folder)


# ------------------------------------------------------------------------------- quantised, attention


@pytest.mark.parametrize(
    ("settings", "library"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}, "gptqmodel"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}, "optimum"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "accelerate"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "accelerate"),
    ],
)  # fmt: skip
def test_quantised_weights_name_the_library_that_they_need(
    tmp_path: Path, settings: dict[str, Any], library: str
) -> None:
    folder = copied(tmp_path, "tiny-qwen")
    edit(folder / "config.json", quantization_config=settings)
    told = line(folder)
    assert f"quantised with {settings['quant_method']}" in told
    assert library in told


def test_without_flash_attention_the_default_is_used_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(tmp_path, "tiny-qwen")
    edit(folder / "config.json", _attn_implementation="flash_attention_2")
    model = models.load(str(folder), "cpu", "float32")
    assert capsys.readouterr().err.splitlines() == [
        "config.json asks for flash_attention_2, which is not installed; the default attention is used"
    ]
    image = tiny.noise((150, 90))
    (ours,), (plain,) = captured(model, [image], "all"), captured(tiny.loaded("tiny-qwen"), [image], "all")
    assert torch.equal(ours.site["value"], plain.site["value"])


# ------------------------------------------------------------------------------- image processors


@pytest.mark.parametrize(
    "kind", ["Qwen2_5_VLImageProcessor", "Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", None]
)
def test_names_that_a_processor_had_are_understood(tmp_path: Path, kind: str | None) -> None:
    folder = copied(tmp_path, "tiny-qwen")
    edit(folder / "preprocessor_config.json", image_processor_type=kind)
    made = models.load_config(str(folder)).image_processor
    assert made.to_dict() == tiny.loaded("tiny-qwen").image_processor.to_dict()


def test_a_processor_that_nobody_knows_is_named(tmp_path: Path) -> None:
    folder = copied(tmp_path, "tiny-qwen")
    edit(folder / "preprocessor_config.json", image_processor_type="MyImageProcessor")
    assert "no image processor 'MyImageProcessor' for qwen2_5_vl" in line(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"min_pixels": 3136, "max_pixels": 20000}},  # transformers 4.45 to 4.48
        {"size": None, "min_pixels": 3136, "max_pixels": 20000},  # Qwen's own folders
        {"size": {"min_pixels": 1, "max_pixels": 2}, "min_pixels": 3136, "max_pixels": 20000},
        {"size": {"shortest_edge": 1, "longest_edge": 2}, "min_pixels": 3136, "max_pixels": 20000},
    ],
)
def test_least_and_most_pixels_are_understood_as_older_versions_saved_them(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = copied(tmp_path, "tiny-qwen")
    edit(folder / "preprocessor_config.json", **settings)
    made = models.load_config(str(folder))
    assert dict(made.image_processor.size) == {"shortest_edge": 3136, "longest_edge": 20000}
    # 600 x 400: by sqrt(240000 / 20000) = 3.464 to 173.2 x 115.5 pixels, 6 x 4 whole cells of 28
    grid = made.family.layout(made.config, made.image_processor, (600, 400), "base").grids[0]
    assert (grid.columns, grid.rows) == (6, 4)


# ------------------------------------------------------------------------------------------ weights


def without(folder: Path, *parts: str) -> None:
    """Take weights out of the file."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    gone = {name for name in weights if any(part in name for part in parts)}
    assert gone
    save_file({name: weights[name] for name in weights if name not in gone}, path, {"format": "pt"})


@pytest.mark.parametrize("name", tiny.NAMES)
def test_the_head_that_writes_answers_may_be_missing_unless_answers_are_wanted(
    tmp_path: Path, name: str
) -> None:
    folder, image = copied(tmp_path, name), tiny.noise((150, 90))
    without(folder, "lm_head")
    loaded = models.with_weights(models.load_config(str(folder)), "cpu", "float32")
    (ours,), (whole,) = captured(loaded, [image], "all"), captured(tiny.loaded(name), [image], "all")
    for site in ("key", "value", "input", "encoder"):
        assert torch.equal(ours.site[site], whole.site[site])
    assert "lack lm_head.weight" in line(folder)


def test_the_head_that_pools_an_image_may_be_missing(tmp_path: Path) -> None:
    folder = copied(tmp_path, "tiny-encoder")
    without(folder, "vision_model.head", "logit_", "post_layernorm")
    loaded = models.with_weights(models.load_config(str(folder)), "cpu", "float32")
    whole = tiny.loaded("tiny-encoder")
    inputs = whole.family.preprocess(whole.config, whole.image_processor, tiny.noise((90, 60)), "base")
    ours, theirs = (each.family.encode(each.model, [inputs], range(5)) for each in (loaded, whole))
    for layer in range(5):
        assert torch.equal(ours.encoder[0][layer], theirs.encoder[0][layer])
    texts = loaded.family.texts(loaded.model, loaded.tokenizer, ["a red fish"])
    assert torch.equal(texts, whole.family.texts(whole.model, whole.tokenizer, ["a red fish"]))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("tiny-onevision", "layers.7.self_attn.v_proj.weight"),
        ("tiny-onevision", "multi_modal_projector.linear_2.bias"),
        ("tiny-next", "embeddings.class_embedding"),
        ("tiny-qwen", "visual.merger.mlp.0.weight"),
        ("tiny-encoder", "text_model.head.weight"),
    ],
)
def test_a_weight_that_vectors_need_is_missed(tmp_path: Path, name: str, part: str) -> None:
    folder = copied(tmp_path, name)
    without(folder, part)
    with pytest.raises(ModelError, match=r"the weights in .* lack .*; download it again"):
        models.with_weights(models.load_config(str(folder)), "cpu", "float32")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.safetensors", POINTER, "a pointer of git-lfs"),
        ("pytorch_model.bin", POINTER, "a pointer of git-lfs"),
        ("pytorch_model.bin", b"<html>404</html>", "pytorch_model.bin is damaged"),
        ("pytorch_model.bin", b"PK\x03\x04" + b"\0" * 99, "pytorch_model.bin is damaged"),
        ("pytorch_model.bin", b"\x80\x02" + b"\0" * 99, "cannot be loaded"),
        ("pytorch_model.bin", b"", "pytorch_model.bin is damaged"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "gone"}}', "lacks the weight file gone"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": 7}}', "lists no weights"),
        ("model.safetensors.index.json", b'{"weight_map"', "index.json cannot be read"),
    ],
)  # fmt: skip
def test_weights_that_are_none_are_told_by_their_file(
    tmp_path: Path, file: str, content: bytes, said: str
) -> None:
    folder = copied(tmp_path, "tiny-next")
    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(content)
    assert said in line(folder)
