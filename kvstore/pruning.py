"""Taking a run out of the catalog, with the rows that no other run uses."""

from __future__ import annotations

import duckdb

_OF_RUN = ("token_grid", "quarantine", "key_stat", "match", "segment", "mask", "answer", "score", "run")
_OF_DATASET = (
    "dataset_image",
    "object",
    "keypoint",
    "caption",
    "expression",
    "void",
    "frame",
    "category",
    "pair",
    "pair_keypoint",
    "question",
    "question_image",
    "load_note",
    "dataset",
)


def forget(con: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Delete the run's rows, then models and data sets of no run, then images of no data set."""
    for table in _OF_RUN:
        con.execute(f"delete from {table} where run_id = $run", {"run": run_id})
    con.execute("delete from model where model_id not in (select model_id from run)")
    for table in _OF_DATASET:
        con.execute(f"delete from {table} where dataset_id not in (select dataset_id from run)")
    con.execute(
        "delete from image where image_id not in (select image_id from dataset_image)"
        " and image_id not in (select image_id from token_grid)"
    )
