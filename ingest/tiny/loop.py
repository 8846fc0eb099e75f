"""The training loop: optimiser, schedule, averaging over processes, resuming, a curve on disk."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn

Modules = dict[str, nn.Module]
Optimisers = Sequence[torch.optim.Optimizer]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, a constant rate, from `decay` (share of the steps) on linearly down to a twentieth."""

    steps: int
    warmup: int = 100
    decay: float = 0.6

    def at(self, step: int) -> float:
        """Factor of the learning rates at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step / self.steps - self.decay) / (1 - self.decay) if self.decay < 1 else 0.0
        return 1 - 0.95 * max(0.0, min(1.0, done))


#: Matrices that are looked up or read out, not multiplied on the way: AdamW's, as in Muon's own use.
_OUTER = ("embed", "lm_head", "patch.", "style.", "probe", "newline")


def optimisers(modules: Sequence[tuple[nn.Module, float]], rate: float = 5e-3) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices between layers, AdamW for all else; shared weights once.

    Each module comes with the factor of its rate; `rate` is Muon's, AdamW's is a third of it.
    """
    inner: list[dict[str, Any]] = []
    outer: list[dict[str, Any]] = []
    seen: set[int] = set()
    for module, factor in modules:
        for name, weight in module.named_parameters():
            if id(weight) in seen or not factor:
                continue
            seen.add(id(weight))
            if weight.ndim == 2 and not any(part in name for part in _OUTER):
                inner.append({"params": [weight], "peak": rate * factor, "weight_decay": 0.02})
            else:
                outer.append({"params": [weight], "peak": rate * factor / 3, "weight_decay": 0.0})
    return [
        torch.optim.Muon(_merged(inner), momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(_merged(outer), betas=(0.9, 0.97)),
    ]


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One group per rate."""
    found: dict[float, dict[str, Any]] = {}
    for group in groups:
        known = found.setdefault(group["peak"], {**group, "lr": group["peak"], "params": []})
        known["params"] += group["params"]
    return list(found.values())


def run(
    name: str,
    folder: Path,
    modules: Modules,
    optimisers: Optimisers,
    schedule: Schedule,
    loss: Callable[[int, random.Random], tuple[torch.Tensor, dict[str, float]]],
    *,
    seed: int,
    each: Callable[[int], dict[str, Any] | None] = lambda step: None,
    every: int = 50,
    save_every: float = 120.0,
) -> None:
    """Train for the schedule's steps, going on where a saved state ends.

    `loss` gives a batch's loss and figures to report; `each` runs after every step on process 0 (snapshots,
    accuracy), what it returns goes into the curve ``<name>.jsonl``; so does a line `every` so many steps.
    The state is saved `save_every` seconds.
    """
    rank, world = place()
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    folder.mkdir(parents=True, exist_ok=True)
    state_path = folder / f"{name}.state"
    start, spent = _resume(state_path, modules, optimisers)
    _agree(parameters)
    _forget_after(folder / f"{name}.jsonl", start)
    begun = saved = time.monotonic()
    figures: dict[str, float] = {}
    for step in range(start, schedule.steps):
        for group in groups:
            group["lr"] = group["peak"] * schedule.at(step)
        rng = random.Random(f"{seed}/{name}/{rank}/{step}")  # the same wherever training was stopped
        torch.manual_seed(rng.getrandbits(32))
        with torch.autocast(parameters[0].device.type, torch.bfloat16):
            value, told = loss(step, rng)
        value.backward()
        _average(parameters, world)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        for key, number in {"loss": value.item(), **told}.items():
            figures[key] = number if key not in figures else 0.95 * figures[key] + 0.05 * number
        if rank == 0:
            seconds = spent + time.monotonic() - begun
            extra = each(step + 1)
            if (step + 1) % every == 0 or extra:
                line = {
                    "step": step + 1,
                    "seconds": round(seconds),
                    **{k: round(v, 4) for k, v in figures.items()},
                }
                _tell(folder / f"{name}.jsonl", {"stage": name, **line, **(extra or {})})
            if time.monotonic() - saved >= save_every or step + 1 == schedule.steps:
                saved = time.monotonic()
                _save(state_path, modules, optimisers, step + 1, seconds)
    if world > 1:
        distributed.barrier()


def _forget_after(curve: Path, step: int) -> None:
    """Take out of a curve the steps that are done again."""
    lines = curve.read_text().splitlines(keepends=True) if curve.is_file() else []
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    if len(kept) < len(lines) and place()[0] == 0:
        curve.write_text("".join(kept))


def _tell(path: Path, line: dict[str, Any]) -> None:
    text = json.dumps(line)
    print(text, flush=True)
    with path.open("a") as file:
        file.write(text + "\n")


def _save(path: Path, modules: Modules, optimisers: Optimisers, step: int, seconds: float) -> None:
    states = {name: module.state_dict() for name, module in modules.items()}
    steps = [optimiser.state_dict() for optimiser in optimisers]
    aside = path.with_suffix(".part")
    torch.save({"modules": states, "optimisers": steps, "step": step, "seconds": seconds}, aside)
    aside.rename(path)


def _resume(path: Path, modules: Modules, optimisers: Optimisers) -> tuple[int, float]:
    """Load a saved state, if there is one: steps done, seconds spent."""
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, map_location=next(iter(modules.values())).parameters().__next__().device)
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
        peaks = [(group["peak"], group["weight_decay"]) for group in optimiser.param_groups]
        optimiser.load_state_dict(kept)
        for group, (peak, decay) in zip(optimiser.param_groups, peaks, strict=True):
            group["peak"], group["weight_decay"] = peak, decay
    return int(state["step"]), float(state["seconds"])


def attend_in_float32(model: Any) -> None:
    """Let a model attend in float32 where autocast makes all else bfloat16: torch's fast kernel on a CPU."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(module: nn.Module, *states: torch.Tensor, **settings: Any) -> Any:
        query, key, value, *mask = states
        with torch.autocast(query.device.type, enabled=False):
            made = (query.float(), key.float(), value.float(), *mask)
            return sdpa_attention_forward(module, *made, **settings)

    AttentionInterface.register("sdpa_float32", attend)
    AttentionMaskInterface.register("sdpa_float32", sdpa_mask)
    model.set_attn_implementation("sdpa_float32")


# --------------------------------------------------------------------------------- several processes


def place() -> tuple[int, int]:
    """Number of this process, and how many share the work."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _agree(parameters: Sequence[torch.Tensor]) -> None:
    if place()[1] > 1:
        for parameter in parameters:
            distributed.broadcast(parameter.data, 0)


def _average(parameters: Sequence[torch.Tensor], world: int) -> None:
    """Mean gradients of all processes; one that a process's batch did not touch is 0 there.

    Frozen weights keep no gradient: Muon would go on in the direction of its momentum on a gradient of 0.
    """
    if world == 1:
        return
    live = [p for p in parameters if p.requires_grad]
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in live]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    distributed.all_reduce(flat)
    flat /= world
    for parameter, part in zip(live, flat.split([p.numel() for p in live]), strict=True):
        parameter.grad = part.view_as(parameter)


def spread(work: Callable[..., None], workers: int, *args: Any) -> None:
    """Run `work(*args)` in `workers` processes of one thread each that average their gradients."""
    if workers == 1:
        work(*args)
        return
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(random.randint(20000, 60000)))
    spawn(_one, (work, workers, args), nprocs=workers)


def _one(rank: int, work: Callable[..., None], workers: int, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # two processes on one core would wait for each other
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
    distributed.init_process_group("gloo", rank=rank, world_size=workers)
    work(*args)
    distributed.destroy_process_group()
