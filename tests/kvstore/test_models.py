"""Names, folders, hub and devices: what loads, and what is said when it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from kvstore import devices, model_files, model_names, models, prompting
from kvstore.errors import ModelError, UnknownNameError, UsageError
from tests import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of tiny-next's folder, free to be damaged."""
    return Path(shutil.copytree(tiny.loaded("tiny-next").folder, tmp_path / "my-next"))


def test_importing_models_leaves_torch_and_transformers_alone() -> None:
    code = (
        "import sys, kvstore.models, kvstore.model_names as names; names.aliases()\n"
        "print({'torch', 'transformers'} & {*sys.modules})"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout == "set()\n"


def test_names_resolve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_names.resolve("tiny-qwen") == model_names.Source("tiny-qwen", "tiny", "tiny-qwen")
    alias = model_names.resolve("llava-onevision-7b")
    assert (alias.kind, alias.location) == ("hub", "llava-hf/llava-onevision-qwen2-7b-ov-hf")
    assert model_names.resolve("some/model").kind == "hub"
    assert model_names.resolve(str(folder)).kind == "folder"
    monkeypatch.chdir(folder.parent)
    assert model_names.resolve("my-next").location == str(folder)


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'qwen2\.5-vl-7b'") as caught:
        model_names.resolve("qwen2.5-v1-7b")
    assert caught.value.nearest == "qwen2.5-vl-7b"
    with pytest.raises(ModelError, match=r"no model folder '\./nowhere'"):
        model_names.resolve("./nowhere")


def test_description_is_that_of_the_model() -> None:
    description = tiny.loaded("tiny-next").description
    assert json.loads(description.pop("processor"))["crop_size"] == {"height": 112, "width": 112}
    assert description == {
        "architecture": "LlavaNextForConditionalGeneration",
        "layers": 8,
        "query_heads": 4,
        "kv_heads": 2,
        "key_dim": 32,
        "value_dim": 32,
        "hidden_dim": 128,
        "encoder_layers": 5,
        "encoder_dim": 128,
        "parameters": sum(weight.numel() for weight in tiny.loaded("tiny-next").model.parameters()),
    }


def test_load_config_is_load_without_weights() -> None:
    whole, part = tiny.loaded("tiny-onevision"), models.load_config("tiny-onevision-untrained")
    assert part.model is None
    assert (part.revision, part.description) == (whole.revision, whole.description)
    assert prompting.prompt_ids(part, "a") == prompting.prompt_ids(whole, "a")


def test_a_loaded_model_is_frozen_and_in_its_dtype() -> None:
    model = models.load("tiny-qwen", "cpu", "bfloat16").model
    assert not model.training
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in model.parameters())


def test_a_folder_loads_as_its_source_does(folder: Path) -> None:
    made = models.load(str(folder), "cpu")
    assert (made.name, made.source, made.family_name) == ("my-next", str(folder), "llava_next")
    assert made.revision == tiny.loaded("tiny-next").revision
    ours, theirs = made.model.state_dict(), tiny.loaded("tiny-next").model.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_revision_follows_the_bytes_of_the_files_used(folder: Path) -> None:
    before = model_files.revision(folder)
    (folder / "README.md").write_text("not used")
    assert model_files.revision(folder) == before
    text = (folder / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").write_text(text.replace("0.48145466", "0.48145467"))
    assert model_files.revision(folder) != before


def test_revision_of_a_hub_snapshot_is_its_commit(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    assert model_files.revision(snapshot) == "0123456789" * 4


def damage(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "broken config":
        (folder / "config.json").write_text("{")
    elif how == "other family":
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    elif how == "missing shard":
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "not safetensors":
        weights.write_bytes(b"<html>404</html>")
    elif how == "a weight missing":
        from safetensors.torch import load_file, save_file

        kept = load_file(weights)
        del kept["image_newline"]
        save_file(kept, weights, {"format": "pt"})
    elif how == "no preprocessor":
        (folder / "preprocessor_config.json").unlink()
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif how == "no tokenizer settings":
        (folder / "tokenizer_config.json").unlink()
    elif how == "no template":
        (folder / "chat_template.jinja").unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no config", "has no config.json"),
        ("broken config", "config.json cannot be read"),
        ("other family", "'gpt2'.*known: .*dinov2, .*llava_next, llava_onevision, qwen2_5_vl, siglip"),
        ("missing shard", "lacks the weight file model-00001-of-00002.safetensors"),
        ("truncated", "model.safetensors is damaged"),
        ("not safetensors", "model.safetensors is damaged"),
        ("a weight missing", "lack .*image_newline"),
        ("no preprocessor", "lacks preprocessor_config.json"),
        ("no tokenizer", "lacks tokenizer.json"),
        ("no tokenizer settings", "lacks tokenizer_config.json"),
        ("no template", "has no chat template"),
    ],
)
def test_a_damaged_folder_is_told_by_the_file_at_fault(folder: Path, how: str, said: str) -> None:
    damage(folder, how)
    with pytest.raises(ModelError, match=said) as caught:
        models.load(str(folder), "cpu")
    assert "\n" not in str(caught.value)


def test_the_processors_template_goes_before_the_tokenizers(folder: Path) -> None:
    template = "{% for m in messages %}USER: {% for part in m['content'] %}<image>\n{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert prompting.prompt(models.load_config(str(folder)), "hi ") == "USER: hi "


def test_a_template_that_writes_the_begin_token_gets_no_second(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ bos_token }}[INST] <image>\n [/INST]")
    made = models.load_config(str(folder))
    assert prompting.prompt_ids(made).count(made.tokenizer.bos_token_id) == 1


def test_a_prefix_that_holds_the_placeholder_is_refused() -> None:
    with pytest.raises(UsageError, match="<image>"):
        prompting.prompt(tiny.loaded("tiny-next"), "an <image> before")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/bin/kvstore", "eval", "coco", "--root", "a b"], "kvstore eval coco --root 'a b' --model tiny-x"),
        (["kvstore", "eval", "x", "--model", "y", "--limit", "2"], "kvstore eval x --model tiny-x --limit 2"),
        (["kvstore", "ingest", "coco", "--model=y"], "kvstore ingest coco --model=tiny-x"),
        (["pytest", "-q"], "--model tiny-x"),
    ],
)  # fmt: skip
def test_command_with_another_model(argv: list[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert model_files.command_with("tiny-x") == expected


@pytest.mark.parametrize(
    ("name", "tiny_name"),
    [
        ("qwen2.5-vl-7b", "tiny-qwen"),
        ("llama3-llava-next-8b", "tiny-next"),
        ("Qwen/Qwen2.5-VL-3B", "tiny-qwen"),
    ],
)
def test_no_hub_is_told_in_one_line_with_a_tiny_model(
    name: str, tiny_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.setattr(sys, "argv", ["kvstore", "ingest", "coco", "--model", name])
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        models.load_config(name)
    assert str(caught.value).endswith(f": kvstore ingest coco --model {tiny_name}")
    assert "\n" not in str(caught.value)


def test_a_hub_model_loads_from_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = tmp_path / "models--some--model" / "snapshots" / ("ab" * 20)
    asked = []

    def download(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append((hub_id, "*.safetensors" in allow_patterns))
        shutil.copytree(tiny.loaded("tiny-qwen").folder, folder, dirs_exist_ok=True)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    made = models.load("some/model", "cpu")
    assert (made.name, made.source, made.revision) == ("some/model", "some/model", "ab" * 20)
    assert asked == [("some/model", False), ("some/model", True)]


def test_weights_that_the_hub_has_only_pickled_are_fetched_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []

    def download(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append([name for name in allow_patterns if name.endswith((".bin", ".safetensors"))])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model_files.snapshot("some/model", "tiny-x", weights=True)
    (tmp_path / "model.safetensors").write_bytes(b"")
    model_files.snapshot("some/model", "tiny-x", weights=True)
    assert asked == [["*.safetensors"], ["pytorch_model*.bin"], ["*.safetensors"]]


def test_a_large_model_is_not_run_on_the_cpu_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(models, "_LARGE", 1_000_000)
    with pytest.raises(ModelError, match=r"no GPU here .*--model tiny-qwen$"):
        models.load("tiny-qwen")
    assert models.load("tiny-qwen", "cpu").model is not None


def test_devices_and_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.choose_device() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.choose_device() == "cpu"
    assert devices.choose_dtype(None, "cuda:0") == "bfloat16"
    assert devices.choose_dtype(None, "cpu") == "float32"
    with pytest.raises(UnknownNameError, match="did you mean 'float16'"):
        devices.choose_dtype("float61", "cpu")
    with pytest.raises(UsageError, match="device 'gpu' cannot be used"):
        devices.choose_device("gpu")


def test_a_tiny_model_appears_whole_and_the_first_of_two_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVSTORE_CACHE", str(tmp_path))
    family = ModuleType("family")
    family.TINY, family.__file__ = "tiny-x", __file__  # type: ignore[attr-defined]

    def killed(folder: Path) -> None:
        (folder / "config.json").write_text("half")
        raise KeyboardInterrupt

    def second(folder: Path) -> None:
        (folder / "config.json").write_text("mine")
        other = tmp_path / "tiny" / f"tiny-x-untrained-{model_files._tiny_key(family)}"
        other.mkdir()
        (other / "config.json").write_text("the other process's")

    family.tiny = killed  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        model_files.tiny_folder(family)
    assert list((tmp_path / "tiny").iterdir()) == []
    family.tiny = second  # type: ignore[attr-defined]
    made = model_files.tiny_folder(family)
    assert (made / "config.json").read_text() == "the other process's"
    assert list((tmp_path / "tiny").iterdir()) == [made]


def test_an_unwritable_cache_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KVSTORE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot write the model cache .*KVSTORE_CACHE"):
        models.load_config("tiny-next-untrained")
