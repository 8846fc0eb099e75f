"""Every setting of a model and its processor that a family reads: honoured as by transformers, or refused.

HONOURED lists values other than the tiny models' own under which what is stored equals plain transformers
loaded from the same folder; REFUSED those that are told in one line before weights are loaded.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kvstore import models
from kvstore.errors import ModelError
from tests import tiny
from tests.capturing import assert_as_plain

CONFIG, PIXELS, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"

#: (tiny model, file, {setting: value}); a dot leads into an object.
HONOURED: list[tuple[str, str, dict[str, Any]]] = [
    *(
        (name, PIXELS, setting)
        for name in ("tiny-next", "tiny-onevision", "tiny-qwen", "tiny-encoder", "tiny-clip", "tiny-dinov2")
        for setting in (
            {"resample": 0, "rescale_factor": 0.01, "image_mean": [0.1, 0.2, 0.3], "image_std": 0.2},
            {"do_rescale": False, "image_std": [50, 60, 70], "do_convert_rgb": False},
            {"do_normalize": False},
        )
    ),
    *(
        (name, CONFIG, setting)
        for name in ("tiny-next", "tiny-onevision")
        for setting in (
            {"vision_feature_layer": 1},
            {"vision_feature_layer": -4},
            {"vision_feature_layer": [2, -1]},
            {"projector_hidden_act": "relu"},
            {"multimodal_projector_bias": False},
            {"image_seq_length": 3},
            {"vision_config.hidden_act": "relu"},
            {"text_config.rms_norm_eps": 0.1},
            {"text_config.rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}},
        )
    ),
    *((name, PIXELS, {"do_pad": False}) for name in ("tiny-next", "tiny-onevision")),
    *((name, PIXELS, {"do_resize": False}) for name in ("tiny-next", "tiny-onevision")),
    ("tiny-next", PIXELS, {"do_center_crop": False}),
    ("tiny-next", PIXELS, {"size": {"height": 112, "width": 112}}),
    ("tiny-next", PIXELS, {"size": 112, "crop_size": 112}),
    ("tiny-next", CONFIG, {"use_image_newline_parameter": True}),
    ("tiny-onevision", PIXELS, {"do_center_crop": True, "crop_size": {"height": 114, "width": 114}}),
    ("tiny-onevision", PIXELS, {"size": {"shortest_edge": 114}}),
    ("tiny-onevision", PROCESSOR, {"num_image_tokens": 196}),
    ("tiny-qwen", PIXELS, {"size": {"shortest_edge": 3136, "longest_edge": 20000}}),
    ("tiny-qwen", PIXELS, {"min_pixels": 40000, "max_pixels": 90000}),
    ("tiny-qwen", PIXELS, {"size": None, "min_pixels": 3136, "max_pixels": 20000}),
    ("tiny-qwen", CONFIG, {"vision_config.window_size": 56}),
    ("tiny-qwen", CONFIG, {"vision_config.fullatt_block_indexes": [0, 2]}),
    ("tiny-qwen", CONFIG, {"vision_config.hidden_act": "gelu"}),
    ("tiny-qwen", CONFIG, {"text_config.rope_parameters.mrope_section": [8, 4, 4]}),
    ("tiny-encoder", PIXELS, {"do_center_crop": True, "crop_size": 114, "size": {"shortest_edge": 130}}),
    ("tiny-clip", PIXELS, {"do_center_crop": False, "size": {"height": 112, "width": 112}}),
    ("tiny-clip", PIXELS, {"size": {"shortest_edge": 140}}),
    ("tiny-clip", PIXELS, {"do_resize": False}),
    ("tiny-dinov2", PIXELS, {"crop_size": {"height": 80, "width": 96}}),
    ("tiny-dinov2", PIXELS, {"do_center_crop": False}),
    ("tiny-dinov2", PIXELS, {"do_resize": False, "do_center_crop": False}),
]  # fmt: skip

#: (tiny model, file, {setting: value}, what the one line says)
REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    *(
        (name, file, setting, said)
        for name in ("tiny-next", "tiny-onevision")
        for file, setting, said in (
            (CONFIG, {"vision_feature_layer": 26}, r"layers, there is no hidden state 26"),
            (CONFIG, {"vision_feature_layer": -27}, r"layers, there is no hidden state -27"),
            (CONFIG, {"vision_feature_layer": [1, 26]}, r"layers, there is no hidden state 26"),
            (CONFIG, {"vision_feature_layer": []}, r"vision_feature_layer .* empty list"),
            (CONFIG, {"image_grid_pinpoints": [[114, 114]]}, r"image_grid_pinpoints .* are not those"),
            (PIXELS, {"image_grid_pinpoints": [[112, 112]]}, r"image_grid_pinpoints .* are not those"),
            (PIXELS, {"size": {"height": 120, "width": 120}}, r"size .* is not the tower's 11\d pixels"),
            (PIXELS, {"size": {"longest_edge": 112}}, r"size .* is not the tower's 11\d pixels"),
            (PIXELS, {"crop_size": {"height": 96, "width": 96}}, r"crop_size .* is not the tower's"),
            (PIXELS, {"image_std": [0, 0, 0]}, r"finite"),
            (PIXELS, {"image_mean": [0.1, 0.2]}, r"mean must have 3"),
            (PROCESSOR, {"vision_feature_select_strategy": "other"}, r"vision_feature_select_strategy of p"),
            (PROCESSOR, {"patch_size": 14}, r"patch_size of processor_config.json is 14; .* 8"),
            (PROCESSOR, {"num_image_tokens": 729}, r"num_image_tokens of processor_config.json is 729"),
            (PROCESSOR, {"num_additional_image_tokens": 5}, r"num_additional_image_tokens of"),
            (CONFIG, {"vision_config.image_size": 120}, r"image_grid_pinpoints hold|is not the tower's"),
        )
    ),
    ("tiny-next", CONFIG, {"vision_feature_select_strategy": "full"}, r"197 vectors .* 196 .*'default'"),
    ("tiny-onevision", CONFIG, {"vision_feature_select_strategy": "default"}, r"195 vectors .* 196 .*'full'"),
    ("tiny-next", CONFIG, {"use_image_newline_parameter": False}, r"use_image_newline_parameter"),
    ("tiny-onevision", CONFIG, {"vision_aspect_ratio": "anyres"}, r"'anyres' .* not known"),
    ("tiny-onevision", CONFIG, {"vision_aspect_ratio": "anyres_max_0"}, r"'anyres_max_0' .* not known"),
    ("tiny-onevision", PROCESSOR, {"vision_aspect_ratio": "anyres_max_4"}, r"vision_aspect_ratio of"),
    ("tiny-qwen", PIXELS, {"patch_size": 16}, r"patch_size .* is 16, .* 14"),
    ("tiny-qwen", PIXELS, {"merge_size": 1}, r"merge_size .* is 1, .*spatial_merge_size .* 2"),
    ("tiny-qwen", PIXELS, {"temporal_patch_size": 1}, r"temporal_patch_size .* is 1, .* 2"),
    ("tiny-qwen", PIXELS, {"do_resize": False}, r"do_resize"),
    ("tiny-qwen", PIXELS, {"size": {"shortest_edge": 56}}, r"size .* longest_edge"),
    ("tiny-qwen", PIXELS, {"size": {"shortest_edge": 9000, "longest_edge": 8000}}, r"size .* longest_edge"),
    ("tiny-qwen", CONFIG, {"vision_config.spatial_merge_size": 4}, r"spatial_merge_size"),
    ("tiny-qwen", CONFIG, {"vision_config.window_size": 14}, r"window_size"),
    ("tiny-qwen", CONFIG, {"vision_config.out_hidden_size": 64}, r"out_hidden_size"),
    ("tiny-encoder", PIXELS, {"size": {"height": 120, "width": 120}}, r"cannot be used"),
    ("tiny-encoder", PIXELS, {"do_resize": False}, r"cannot be used"),
    ("tiny-encoder", PIXELS, {"do_pad": True, "pad_size": 130}, r"130 x 130 pixels"),
    ("tiny-clip", PIXELS, {"crop_size": {"height": 96, "width": 96}}, r"doesn't match model"),
    ("tiny-clip", PIXELS, {"do_center_crop": False}, r"doesn't match model"),
    ("tiny-dinov2", PIXELS, {"size": {"shortest_edge": 56, "longest_edge": 90}}, r"size .* is unknown"),
]  # fmt: skip


def edited(folder: Path, name: str, file: str, settings: dict[str, Any]) -> Path:
    """A copy of an untrained tiny model's folder with settings put in; None takes one out."""
    made = Path(shutil.copytree(tiny.loaded(name).folder, folder / "model"))
    whole = json.loads((made / file).read_text())
    for setting, value in settings.items():
        *way, last = setting.split(".")
        inner = whole
        for step in way:
            inner = inner[step]
        inner[last] = value
        if value is None:
            del inner[last]
    (made / file).write_text(json.dumps(whole))
    return made


def widened(folder: Path, count: int) -> None:
    """Give the projector weights for so many hidden states side by side."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (key,) = (name for name in weights if name.endswith("multi_modal_projector.linear_1.weight"))
    weights[key] = torch.cat([weights[key] * 0.9**place for place in range(count)], 1).contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def ident(case: Any) -> str | None:
    return "-".join(case) if isinstance(case, dict) else None


@pytest.mark.parametrize(("name", "file", "setting"), HONOURED, ids=ident)
def test_a_setting_is_honoured_as_by_transformers(
    name: str, file: str, setting: dict[str, Any], tmp_path: Path
) -> None:
    folder = edited(tmp_path, name, file, setting)
    if isinstance(setting.get("vision_feature_layer"), list):
        widened(folder, 2)
    assert_as_plain(folder, tiny.noise((150, 90)))


@pytest.mark.parametrize(("name", "file", "setting", "said"), REFUSED, ids=ident)
def test_a_setting_that_does_not_fit_is_refused_in_a_line(
    name: str, file: str, setting: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = edited(tmp_path, name, file, setting)
    with pytest.raises(ModelError, match=said) as caught:
        models.load_config(str(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300 + len(str(folder))
