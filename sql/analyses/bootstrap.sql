-- bootstrap: one row per (run, probe, metric, site, layer, head): a figure and its bootstrap 95 % interval over items
-- What a figure, its classes and its items are stands at macro figure_items; `n` counts items. A probe or a run of null
-- means all. Sites position and chance are floors. 1000 resamples of the items (see macro poisson_weights), shared by all
-- layers, heads and classes; a resample's figure is a mean of ratios of two inner products: 200 pairs x 128 image values
-- take a second on two cores, 12,234 pairs x 112 image values most of a minute and 2 GB.
with items as (
    select
        *,
        dense_rank() over (partition by run_id, probe, metric order by item) as place,
    from figure_items($run, $probe)
),

figures as (
    select
        run_id,
        probe,
        metric,
        site,
        layer,
        head,
        class,
        list(part order by place) as part,
        list(whole order by place) as whole,
        list(place order by place) as places,
        max(place) as last,
        count(*) = max(place) as dense,
        sum(part) / nullif(sum(whole), 0) as value,
    from items
    group by run_id, probe, metric, site, layer, head, class
),

longest as (
    select coalesce(max(last), 0) as items from figures
),

padded as (
    select
        * exclude (part, whole),
        case when dense then list_resize(part, items, 0.0) else part end as part,
        case when dense then list_resize(whole, items, 0.0) else whole end as whole,
    from figures, longest
),

weights as (
    select resample, poisson_weights(resample, items) as weight
    from range(1000) resamples(resample), longest
),

drawn as (
    select
        * exclude (weight, part, whole, places),
        case when dense then weight else list_select(weight, places) end as weighs,
        list_inner_product(part, weighs) / nullif(list_inner_product(whole, weighs), 0) as drawn,
    from padded, weights
),

resampled as (
    select run_id, probe, metric, site, layer, head, resample, avg(drawn) as resampled,
    from drawn
    group by all
),

intervals as (
    select
        run_id,
        probe,
        metric,
        site,
        layer,
        head,
        quantile_cont(resampled, 0.025) as low,
        quantile_cont(resampled, 0.975) as high,
    from resampled
    group by all
),

counted as (
    select run_id, probe, metric, site, layer, head, count(distinct item)::integer as n,
    from items
    group by all
),

means as (
    select run_id, probe, metric, site, layer, head, avg(value) as value,
    from figures
    group by all
)

select
    m.run_id,
    m.probe,
    m.metric,
    m.site,
    m.layer,
    m.head,
    m.value,
    i.low,
    i.high,
    c.n,
from means m
join intervals i
    on i.run_id = m.run_id
    and i.probe = m.probe
    and i.metric = m.metric
    and i.site = m.site
    and i.layer = m.layer
    and i.head is not distinct from m.head
join counted c
    on c.run_id = m.run_id
    and c.probe = m.probe
    and c.metric = m.metric
    and c.site = m.site
    and c.layer = m.layer
    and c.head is not distinct from m.head
order by all
