-- best_layer: one row per (run, probe, metric, site): the best layer and head on one half of the items, scored on the other
-- `chosen_on` is the figure that made it the best, on items with an even hash; `value` is its figure on the rest, with a
-- bootstrap 95 % interval over those n items (macro poisson_weights, 1000 resamples). What a figure and its items are
-- stands at macro figure_items. Sites position and chance are floors on the same other half: nothing was chosen there.
with items as (
    select
        *,
        hash(item) % 2 = 0 as chooses,
        site in ('position', 'chance') as floor,
    from figure_items($run, $probe)
),

best as (
    select run_id, probe, metric, site, floor, layer, head, sum(part) / nullif(sum(whole), 0) as chosen_on,
    from items
    where chooses or floor
    group by run_id, probe, metric, site, floor, layer, head
    qualify row_number() over (
        partition by run_id, probe, metric, site
        order by chosen_on desc nulls last, layer, head nulls last
    ) = 1
),

held_out as (
    select
        best.*,
        sum(items.part) / nullif(sum(items.whole), 0) as value,
        count(items.item) as n,
        list(items.part order by items.item) filter (items.item is not null) as part,
        list(items.whole order by items.item) filter (items.item is not null) as whole,
    from best
    left join items
        on items.run_id = best.run_id
        and items.probe = best.probe
        and items.metric = best.metric
        and items.site = best.site
        and items.layer = best.layer
        and items.head is not distinct from best.head
        and not items.chooses
    group by all
),

resampled as (
    select
        *,
        list_inner_product(part, poisson_weights(resample, n))
        / nullif(list_inner_product(whole, poisson_weights(resample, n)), 0) as resampled,
    from held_out
    cross join range(1000) as resamples(resample)
),

figures as (
    select
        run_id,
        probe,
        metric,
        floor,
        site,
        case when not floor then layer end as layer,
        head,
        case when not floor then chosen_on end as chosen_on,
        value,
        quantile_cont(resampled, 0.025) as low,
        quantile_cont(resampled, 0.975) as high,
        n,
    from resampled
    group by all
)

select * exclude (floor)
from figures
order by run_id, probe, metric, floor, site
