"""Overview of the store.

What has been ingested: which models saw which data sets, how many images, tokens and bytes that came to,
how fast it went and which stage the others waited for, and what was refused and why.
"""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt
import polars as pl

from kvstore.report import BLUE, Block, Chart, Missing, Query, Table, size

LABEL = "observational"
PROTOCOL = "counts of the catalog; speeds are those of a run's last session, padding tokens left out."

HELD = ("images", "quarantined", "tokens")
SPEEDS = {"images_per_s": "images/s", "tokens_per_s": "tokens/s", "mb_per_s": "MB/s"}


def build(query: Query) -> Iterator[Block]:
    runs = query("runs")
    if runs.is_empty():
        yield Missing("This store holds no run yet.", "kvstore ingest shapes")
        return
    yield Table(
        "Runs",
        runs.select("run_id", "model", "dataset", "view", "sites", "layers", "dtype", "state"),
        "Newest first. An interrupted run resumes with the command that started it.",
        {"run_id": "run"},
    )
    yield _bars(runs, "images", "Images by run", "Images stored whole: every layer and patch of them.")
    yield _bars(runs, "bytes", "Bytes by run", "Bytes of the stored vectors (float16).")
    yield Table(
        "Sizes and speed",
        runs.select("run_id", "requested", *HELD, "bytes", *SPEEDS, "limiting_stage"),
        "What is stored, and the rates of each run's last session. The limiting stage is the one that the"
        " others waited for.",
        {"run_id": "run", **SPEEDS},
    )
    refused = query("quarantine")
    if refused.height:
        yield Table("Refused images", refused, "The next ingest tries each of them again.", {"run_id": "run"})
    yield Table(
        "Data sets",
        query("dataset_summary").drop("root").with_columns(pl.col("fingerprint").str.slice(0, 12)),
        "Images stored: distinct ones, over all runs. Fingerprints cut to 12 digits; whole under Runs shown.",
    )
    yield Table(
        "Models",
        query("model_summary")
        .drop("key_dim", "value_dim", "hidden_dim", "source")
        .with_columns(pl.col("revision").str.slice(0, 12)),
        "Revision: hub commit, or sha256 over the folder's files; cut to 12 digits, whole under Runs shown.",
        {"kv_heads": "KV heads"},
    )


def _bars(runs: pl.DataFrame, column: str, title: str, caption: str) -> Chart:
    named = size if column == "bytes" else "{:,}".format
    label = pl.col(column).map_elements(named, return_dtype=pl.String)
    rows = runs.select("run_id", "model", "dataset", amount=column, label=label)
    base = alt.Chart(rows).encode(
        y=alt.Y("run_id:N", title=None, sort=None, axis=alt.Axis(labelLimit=260, labelOverlap=False)),
        x=alt.X("amount:Q", axis=None),
        tooltip=["run_id:N", "model:N", "dataset:N", alt.Tooltip("label:N", title=column)],
    )
    words = base.mark_text(align="left", dx=5).encode(text="label:N")
    return Chart(column, title, base.mark_bar(color=BLUE, height=14) + words, caption)
