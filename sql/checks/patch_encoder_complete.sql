-- patch_encoder_complete: one row per run and image whose rows in patch_encoder are not layers x patches, each once
with promised as (
    select
        run_id,
        image_id,
        sum(token_grid.rows * token_grid.columns) * len(any_value(run.encoder_layers)) as rows_promised,
    from token_grid
    join run using (run_id)
    where list_contains(run.sites, 'encoder')
    group by run_id, image_id
),

stored as (
    select
        run_id,
        image_id,
        count(*) as rows_stored,
        count(distinct (layer, patch)) as distinct_rows,
    from patch_encoder
    group by run_id, image_id
)

select run_id, image_id, rows_promised, coalesce(rows_stored, 0) as rows_stored, distinct_rows
from promised
left join stored using (run_id, image_id)
where rows_stored is distinct from rows_promised or distinct_rows <> rows_promised
order by run_id, image_id
