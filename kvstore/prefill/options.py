"""What a user can ask of an ingest, checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kvstore.contracts import SITES, VIEWS, Site, View
from kvstore.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from kvstore.models import Loaded


#: What is stored of a multimodal model unless the user says otherwise.
DEFAULT_SITES: tuple[Site, ...] = ("value", "key", "input")


@dataclass(frozen=True)
class Options:
    """One ingest.

    annotations     a file that an annotation tool wrote, instead of a root and a split
    images          folder of its images; None is the file's own folder
    follow_links    links in the data set's folders may lead out of them
    layers          language model layers, as text: ``0-27``, ``0,5,9-12``; None is all
    encoder_layers  hidden states of the vision encoder, likewise, with site ``encoder``, 0 the embeddings;
                    None is the last, of an encoder alone all
    sites           what to store; the default stands for ``encoder`` where the model is an encoder alone
    pool            average pool x pool patches before storing; 1 stores every patch
    prefix          text placed right before the image, verbatim
    batch           most images in one forward pass; None chooses by device
    trusted         code of the model's folder may run, as `kvstore.models.load_config` says
    """

    dataset: str
    model: str
    root: Path | None = None
    split: str | None = None
    annotations: Path | None = None
    images: Path | None = None
    follow_links: bool = False
    limit: int | None = None
    layers: str | None = None
    encoder_layers: str | None = None
    sites: tuple[Site, ...] = DEFAULT_SITES
    pool: int = 1
    prefix: str = ""
    view: View = "base"
    batch: int | None = None
    device: str | None = None
    dtype: str | None = None
    run: str | None = None
    workers: int | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        if not self.sites:
            raise UsageError(f"no site to store; choose some of {', '.join(SITES)}.")
        for site in self.sites:
            if site not in SITES:
                raise UnknownNameError("site", site, SITES)
        if self.view not in VIEWS:
            raise UnknownNameError("view", self.view, VIEWS)
        for name in ("pool", "batch", "limit", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1, not {value}.")


def settled(options: Options, model: Loaded) -> Options:
    """The options with what the model decides filled in; `UsageError` for what it cannot do."""
    if not model.is_encoder:
        if options.encoder_layers is not None and "encoder" not in options.sites:
            raise UsageError("--encoder-layers needs --sites encoder (among others).")
        return options
    last = model.description["encoder_layers"]
    remedy = _not_of_an_encoder(options, last)
    if remedy:
        raise UsageError(
            f"model '{model.name}' is a vision encoder alone, without a language model: {remedy}"
        )
    layers = f"0-{last}" if options.encoder_layers is None else options.encoder_layers
    return replace(options, sites=("encoder",), encoder_layers=layers)


def _not_of_an_encoder(options: Options, last: int) -> str | None:
    """What is asked for that only a model with a language model has, and what to do."""
    if options.sites not in (DEFAULT_SITES, ("encoder",)):
        asked = ", ".join(site for site in options.sites if site != "encoder")
        return f"it has no {asked}. Leave --sites away; what it stores is site encoder."
    if options.layers is not None:
        return f"it has no --layers. Choose hidden states with --encoder-layers 0-{last} (0: the embeddings)."
    if options.prefix:
        return "no text comes before the image. Leave --prefix away."
    if options.view != "base":
        return f"it has no tiles for --view {options.view}. Leave --view away."
    return None


def site_list(text: str) -> tuple[Site, ...]:
    """``value,key`` as sites, in the fixed order of `SITES`; `UnknownNameError` for others."""
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for name in wanted:
        if name not in SITES:
            raise UnknownNameError("site", name, SITES)
    return tuple(site for site in SITES if site in wanted)


def layer_list(text: str | None, count: int, what: str = "layer") -> tuple[int, ...]:
    """``0-27`` or ``0,5,9-12`` as sorted layer numbers below `count`; None is all.

    Raises `UsageError` for what is no list of numbers and for a layer beyond the last.
    """
    if text is None:
        return tuple(range(count))
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise UsageError(
                f"'{part}' is no {what} or range of them; write for example 0-{count - 1} or 0,3."
            )
        if (beyond := max(int(first), int(last or first))) >= count:
            raise UsageError(f"there is no {what} {beyond}: this model has {count}, 0 to {count - 1}.")
        found.update(range(int(first), int(last or first) + 1))
    if not found:
        raise UsageError(f"'{text}' names no {what}; write for example 0-{count - 1}.")
    return tuple(sorted(found))
