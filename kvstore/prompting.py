"""The prompt around an image: the model's own chat template, in text and in token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kvstore import model_files
from kvstore.errors import ModelError, UsageError
from kvstore.limits import within_limits
from kvstore.models import Loaded
from kvstore.pretrained import AGAIN, told

T = TypeVar("T")


def processor(loaded: Loaded) -> Any:
    """The real processor of the family for text and images, built from its parts.

    Its video part, where it has one, is left out: that would need torchvision.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    real = getattr(transformers, PROCESSOR_MAPPING_NAMES[loaded.config.model_type])

    def check(self: Any, argument_name: str, argument: Any) -> Any:
        return (
            None if argument is None else real.check_argument_for_proper_class(self, argument_name, argument)
        )

    kind = type(
        real.__name__, (real,), {"check_argument_for_proper_class": check, "__module__": real.__module__}
    )
    settings = model_files.processor_settings(loaded.folder)
    return kind(loaded.image_processor, loaded.tokenizer, chat_template=loaded.chat_template, **settings)


def prompt(loaded: Loaded, prefix: str = "") -> str:
    """The text before the first image token: a user turn that begins with `prefix` and the image.

    Templates put images before text whatever the order of the turn's content, so the rendered text is cut
    where the image starts and the prefix is put there verbatim.
    """
    return _rendered(loaded, prefix)[0]


def prompt_ids(loaded: Loaded, prefix: str = "") -> list[int]:
    """Token ids before the first image token, as the real processor makes them of the whole prompt."""
    ids = _prompt_ids(loaded, prefix)
    return ids[: ids.index(loaded.image_token_id)]


def question_ids(loaded: Loaded, questions: Sequence[tuple[str, int]], prefix: str = "") -> list[list[int]]:
    """Token ids of whole prompts: a user turn of images, each one placeholder, and a question, verbatim.

    questions  each one's text, and how many images it has

    `prefix` stands right before the first image, as in `prompt`. Raises `UsageError` for a question that
    holds the placeholder, `ModelError` where the template takes too long over any of them.
    """
    found: list[list[int]] = []
    _ = loaded.tokenizer  # once here, not in each fork
    for start in range(0, len(questions), _AT_ONCE):
        found += _bounded(loaded, partial(_all_ids, loaded, prefix, questions[start : start + _AT_ONCE]))
    return found


#: Prompts of questions that one fork makes: it takes as long as some of them.
_AT_ONCE = 100
#: Templates, with their tokenizers' folders, of which a prompt without a question was made within the limits.
#: Only the first is: a template is not shown the prefix, so that it does the same each time.
_TRIED: set[tuple[Path, str]] = set()


def _prompt_ids(loaded: Loaded, prefix: str) -> list[int]:
    tried = loaded.folder, loaded.chat_template
    if tried in _TRIED:
        return _ids_of(loaded, prefix)
    ids = _bounded(loaded, lambda: _ids_of(loaded, prefix))
    _TRIED.add(tried)
    return ids


def _bounded(loaded: Loaded, work: Callable[[], T]) -> T:
    return within_limits(f"a prompt by the chat template in '{loaded.folder}'", _TEMPLATE, work)


def _all_ids(loaded: Loaded, prefix: str, questions: Sequence[tuple[str, int]]) -> list[list[int]]:
    return [_ids_of(loaded, prefix, *question) for question in questions]


def _ids_of(loaded: Loaded, prefix: str, question: str | None = None, images: int = 1) -> list[int]:
    return _ids(loaded, "".join(_rendered(loaded, prefix, images, question)))


def _ids(loaded: Loaded, text: str) -> list[int]:
    """Token ids of a rendered prompt, as the real processor makes them."""
    with told(f"the tokenizer in '{loaded.folder}' cannot be used", AGAIN):
        begin = loaded.tokenizer.bos_token
        # as `apply_chat_template` does: a template that writes the begin token itself gets no second one
        special = not (begin is not None and text.startswith(begin))
        return [int(token) for token in loaded.tokenizer(text, add_special_tokens=special)["input_ids"]]


def _rendered(
    loaded: Loaded, prefix: str, images: int = 1, question: str | None = None
) -> tuple[str, str, str]:
    """Head (prefix and image start included), placeholder and tail of the rendered prompt."""
    if loaded.is_encoder:
        raise UsageError(
            f"model '{loaded.name}' is a vision encoder alone and reads no prompt; take a model with a "
            f"language model, for example {model_files.command_with('tiny-onevision')}"
        )
    placeholder = _placeholder(loaded)
    for what, text in (("prefix", prefix), ("question", question)):
        if placeholder in (text or ""):
            raise UsageError(f"the {what} holds '{placeholder}', which stands for the image")
    content = [{"type": "image"}] * images
    content += [] if question is None else [{"type": "text", "text": question}]
    start = loaded.family.IMAGE_START
    head, found, tail = _turn(loaded, content).partition(start + placeholder)
    if not found:
        raise ModelError(
            f"the chat template in '{loaded.folder}' writes no '{start + placeholder}' for an image; "
            f"{_TEMPLATE}"
        )
    return head + prefix + start, placeholder, tail


#: What helps with most chat templates that do not do; fine-tuning leaves those of text models in a folder.
_TEMPLATE = "put the chat_template.jinja of the model's family there"


def _turn(loaded: Loaded, content: list[dict[str, str]]) -> str:
    """A user turn of `content` and the begin of the answer, as the model's chat template writes them."""
    with told(f"the chat template in '{loaded.folder}' cannot be rendered with an image", _TEMPLATE):
        return str(
            loaded.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=loaded.chat_template,
                add_generation_prompt=True,
                tokenize=False,
            )
        )


def _placeholder(loaded: Loaded) -> str:
    """The text that stands for an image; `ModelError` where it is no single token of the tokenizer."""
    token, told_by = loaded.image_token_id, f"which config.json in '{loaded.folder}' names as the image's"
    with told(f"the tokenizer cannot tell token {token}, {told_by}", AGAIN):
        found = loaded.tokenizer.convert_ids_to_tokens(token)
        if not isinstance(found, str):
            raise ModelError(f"the tokenizer has no token {token}, {told_by}; {AGAIN}")
        if loaded.tokenizer(found, add_special_tokens=False)["input_ids"] != [token]:
            raise ModelError(f"the tokenizer takes '{found}' apart, its token {token}, {told_by}; {AGAIN}")
    return found
