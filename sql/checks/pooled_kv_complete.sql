-- pooled_kv_complete: one row per run and image whose rows in pooled_kv are not exactly layers x heads
with promised as (
    select run_id, image_id, len(run.layers) * model.kv_heads as rows_promised
    from (select distinct run_id, image_id from token_grid)
    join run using (run_id)
    join model using (model_id)
    where list_has_any(run.sites, ['key', 'value'])
),

stored as (
    select
        run_id,
        image_id,
        count(*) as rows_stored,
        count(distinct (layer, head)) as distinct_rows,
    from pooled_kv
    group by run_id, image_id
)

select run_id, image_id, rows_promised, coalesce(rows_stored, 0) as rows_stored, distinct_rows
from promised
left join stored using (run_id, image_id)
where rows_stored is distinct from rows_promised or distinct_rows is distinct from rows_promised
order by run_id, image_id
