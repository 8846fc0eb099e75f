-- score_correspondence: one row per (run, metric, site, layer, head): PCK and its bootstrap 95 % interval over pairs
-- `pck@a` weighs keypoints alike, `pck_image@a` weighs pairs alike; n counts pairs.
-- 1000 resamples of the pairs (see macro poisson_weights), shared by all layers and heads. A resample's figure is
-- a ratio of two inner products: 200 pairs x 128 image values take a second on two cores, 12,234 pairs x 112
-- image values most of a minute and 2 GB.
with pairs as (
    select * from pair_hits($run, [0.05, 0.10, 0.15])
),

items as (
    select run_id, 'pck@' || printf('%.2f', alpha) as metric, site, layer, head, pair_id, hits, points,
    from pairs
    union all
    select run_id, 'pck_image@0.10', site, layer, head, pair_id, hits / points, 1,
    from pairs
    where alpha = 0.10
),

figures as (
    select
        run_id,
        metric,
        site,
        layer,
        head,
        list(hits::double order by pair_id) as hits,
        list(points::double order by pair_id) as points,
        count(*) as n,
        sum(hits) / sum(points) as value,
    from items
    group by all
),

longest as (
    select coalesce(max(n), 0) as items from figures
),

padded as (
    select
        * exclude (hits, points),
        list_resize(hits, items, 0.0) as hits,
        list_resize(points, items, 0.0) as points,
    from figures, longest
),

weights as (
    select poisson_weights(resample, items) as weight
    from range(1000) resamples(resample), longest
),

resampled as (
    select
        * exclude (hits, points, weight),
        list_inner_product(hits, weight) / nullif(list_inner_product(points, weight), 0) as resampled,
    from padded, weights
)

select
    run_id,
    'correspondence' as probe,
    metric,
    site,
    layer,
    head,
    value,
    quantile_cont(resampled, 0.025) as low,
    quantile_cont(resampled, 0.975) as high,
    n::integer as n,
from resampled
group by all
order by all
