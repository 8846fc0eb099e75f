-- best_layer: one row per (run, probe, metric, site): the best layer and head on one half of the items, scored on the other
-- `chosen_on` is the figure that made it the best, on items with an even hash; `value` is its figure on the rest, with a
-- bootstrap 95 % interval over those n items (macro poisson_weights, 1000 resamples). What a figure, its classes and its
-- items are stands at macro figure_items. Sites position and chance are floors on the same other half: nothing was chosen
-- there.
with items as (
    select
        *,
        hash(item) % 2 = 0 as chooses,
        site in ('position', 'chance') as floor,
    from figure_items($run, $probe)
),

choosing as (
    select
        run_id,
        probe,
        metric,
        site,
        floor,
        layer,
        head,
        class,
        sum(part) / nullif(sum(whole), 0) as chosen_on,
    from items
    where chooses or floor
    group by all
),

best as (
    select run_id, probe, metric, site, floor, layer, head, avg(chosen_on) as chosen_on,
    from choosing
    group by run_id, probe, metric, site, floor, layer, head
    qualify row_number() over (
        partition by run_id, probe, metric, site
        order by avg(chosen_on) desc nulls last, layer, head nulls last
    ) = 1
),

scored as (
    select
        best.*,
        items.class,
        items.item,
        items.part,
        items.whole,
        dense_rank() over (partition by best.run_id, best.probe, best.metric, best.site order by items.item) as place,
    from best
    left join items
        on items.run_id = best.run_id
        and items.probe = best.probe
        and items.metric = best.metric
        and items.site = best.site
        and items.layer = best.layer
        and items.head is not distinct from best.head
        and not items.chooses
),

held_out as (
    select
        * exclude (class, item, part, whole, place),
        class,
        sum(part) / nullif(sum(whole), 0) as value,
        coalesce(max(place) filter (item is not null), 0) as items,
        list(part order by place) filter (item is not null) as part,
        list(whole order by place) filter (item is not null) as whole,
        list(place order by place) filter (item is not null) as places,
    from scored
    group by all
),

weights as (
    select resample, poisson_weights(resample, most) as weight
    from range(1000) as resamples(resample), (select max(items) as most from held_out)
),

drawn as (
    select
        * exclude (part, whole, places, weight),
        list_inner_product(part, list_select(weight, places))
        / nullif(list_inner_product(whole, list_select(weight, places)), 0) as drawn,
    from held_out, weights
),

resampled as (
    select
        * exclude (class, value, items, drawn),
        avg(value) as value,
        max(items) as n,
        avg(drawn) as resampled,
    from drawn
    group by all
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
