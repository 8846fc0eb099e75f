-- stray_vectors: one row per finished run, table and image that has vectors and no row in token_grid
-- Lance commits come before the catalog's: a run that is being made, or waits to be resumed, may be ahead.
with stored as (
    select distinct run_id, 'patch_kv' as "table", image_id from patch_kv
    union all
    select distinct run_id, 'pooled_kv', image_id from pooled_kv
    union all
    select distinct run_id, 'patch_input', image_id from patch_input
    union all
    select distinct run_id, 'patch_encoder', image_id from patch_encoder
)

select stored.*
from stored
semi join (from run where state = 'done') as finished using (run_id)
anti join token_grid using (run_id, image_id)
order by all
