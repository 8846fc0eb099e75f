-- text_kv_complete: one row per run and text whose rows in text_kv are not layers x heads, each once
with stored as (
    select
        run_id,
        "text",
        count(*) as rows_stored,
        count(distinct (layer, head)) as distinct_rows,
        count(*) filter (not list_contains(run.layers, layer) or head not between 0 and model.kv_heads - 1) as strange,
        any_value(len(run.layers) * model.kv_heads) as rows_promised,
    from text_kv
    join run using (run_id)
    join model using (model_id)
    group by run_id, "text"
)

select run_id, "text", rows_promised, rows_stored, distinct_rows, strange
from stored
where rows_stored <> rows_promised or distinct_rows <> rows_promised or strange > 0
order by run_id, "text"
