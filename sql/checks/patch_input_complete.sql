-- patch_input_complete: one row per run and image whose rows in patch_input are not each patch once
with promised as (
    select run_id, image_id, sum(token_grid.rows * token_grid.columns) as rows_promised
    from token_grid
    join run using (run_id)
    where list_contains(run.sites, 'input')
    group by run_id, image_id
),

stored as (
    select
        run_id,
        image_id,
        count(*) as rows_stored,
        count(distinct patch) as distinct_rows,
        max(patch) as last_patch,
    from patch_input
    group by run_id, image_id
)

select run_id, image_id, rows_promised, coalesce(rows_stored, 0) as rows_stored, distinct_rows, last_patch
from promised
left join stored using (run_id, image_id)
where
    rows_stored is distinct from rows_promised
    or distinct_rows <> rows_promised
    or last_patch <> rows_promised - 1
order by run_id, image_id
