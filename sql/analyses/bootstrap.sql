-- bootstrap: one row per (run, probe, metric, site, layer, head): a figure and its bootstrap 95 % interval over items
-- What a figure and its items are stands at macro figure_items; `n` counts items. A probe or a run of null means all.
-- Sites position and chance are floors. 1000 resamples of the items (see macro poisson_weights), shared by all layers
-- and heads; a resample's figure is a ratio of two inner products: 200 pairs x 128 image values take a second on two
-- cores, 12,234 pairs x 112 image values most of a minute and 2 GB.
with figures as (
    select
        run_id,
        probe,
        metric,
        site,
        layer,
        head,
        list(part order by item) as part,
        list(whole order by item) as whole,
        count(*) as n,
        sum(part) / nullif(sum(whole), 0) as value,
    from figure_items($run, $probe)
    group by run_id, probe, metric, site, layer, head
),

longest as (
    select coalesce(max(n), 0) as items from figures
),

padded as (
    select
        * exclude (part, whole),
        list_resize(part, items, 0.0) as part,
        list_resize(whole, items, 0.0) as whole,
    from figures, longest
),

weights as (
    select poisson_weights(resample, items) as weight
    from range(1000) resamples(resample), longest
),

resampled as (
    select
        * exclude (part, whole, weight),
        list_inner_product(part, weight) / nullif(list_inner_product(whole, weight), 0) as resampled,
    from padded, weights
)

select
    run_id,
    probe,
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
