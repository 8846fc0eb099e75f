-- patch_kv_complete: one row per run and image whose rows in patch_kv are not exactly layers x heads x patches
-- An image is whole or not there: a row of token_grid promises every (layer, head, patch) once. Hashes are
-- summed and compared, so that a row stored twice cannot stand in for one that is missing, without sorting
-- the whole table (exact grouping of 24 million rows: 6.3 s; this: 0.6 s).
with image_patches as (
    select run_id, image_id, sum(rows * columns) as patches
    from token_grid
    group by run_id, image_id
),

shapes as (
    select distinct run_id, patches
    from image_patches
),

promised as (
    select
        run_id,
        patches,
        count(*) as rows_promised,
        sum(hash(layer::integer, head::integer, patch::integer)) as hash_promised,
    from (
        select
            run_id,
            patches,
            unnest(run.layers) as layer,
            kv_head.range as head,
            position.range as patch,
        from shapes
        join run using (run_id)
        join model using (model_id)
        cross join range(model.kv_heads) as kv_head
        cross join range(patches::bigint) as position
        where list_has_any(run.sites, ['key', 'value'])
    )
    group by run_id, patches
),

stored as (
    select
        run_id,
        image_id,
        count(*) as rows_stored,
        sum(hash(layer::integer, head::integer, patch::integer)) as hash_stored,
    from patch_kv
    group by run_id, image_id
)

select run_id, image_id, rows_promised, coalesce(rows_stored, 0) as rows_stored
from image_patches
join promised using (run_id, patches)
left join stored using (run_id, image_id)
where rows_stored is distinct from rows_promised or hash_stored is distinct from hash_promised
order by run_id, image_id
