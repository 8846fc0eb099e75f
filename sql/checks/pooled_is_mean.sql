-- pooled_is_mean: one row per layer and head where pooled_kv is not the mean of patch_kv, in a run's first image
-- Within 1 %: both are float16, and the mean was taken before rounding. Not with --pool: blocks at a far edge
-- may then hold fewer patches and weigh as much.
with elements as (
    select
        layer,
        head,
        unnest(key) as key,
        unnest(value) as value,
        unnest(range(greatest(len(coalesce(key, [])), len(coalesce(value, []))))) as dimension,
    from patch_kv
    where run_id = $run and image_id = $image
),

means as (
    select layer, head, dimension, avg(key) as key, avg(value) as value
    from elements
    group by layer, head, dimension
),

pooled as (
    select
        layer,
        head,
        unnest(key) as key,
        unnest(value) as value,
        unnest(range(greatest(len(coalesce(key, [])), len(coalesce(value, []))))) as dimension,
    from pooled_kv
    where run_id = $run and image_id = $image
),

distances as (
    select
        layer,
        head,
        sqrt(sum((means.key - pooled.key)^2)) as key_off,
        sqrt(sum(pooled.key^2)) as key_norm,
        sqrt(sum((means.value - pooled.value)^2)) as value_off,
        sqrt(sum(pooled.value^2)) as value_norm,
    from means
    join pooled using (layer, head, dimension)
    group by layer, head
)

select $run as run_id, $image as image_id, distances.*
from distances, (select pool from run where run_id = $run) as run
where run.pool = 1 and (key_off > 0.01 * key_norm or value_off > 0.01 * value_norm)
order by layer, head
