-- best_layer: one row per (run, probe, metric, site): the best layer and head on one half of the units, scored on the other
-- `chosen_on` is the figure that made it the best, on items that macro half_of puts on the half that chooses; `value` is its
-- figure on the other half, of n items that share `units` units, with a bootstrap 95 % interval over these (macro intervals).
-- An item with units on both halves is on neither; `left_out` counts those. Where the half that chooses has no items, the
-- best on all is named and has no figure. What a figure, its classes, its items and their units are stands at macro
-- figure_items. Sites position and chance are floors on the same other half: nothing was chosen there.
with halved as (
    select *, half_of(units) as half, site in ('position', 'chance') as floor
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
        sum(part) filter (half = 'chooses') / nullif(sum(whole) filter (half = 'chooses'), 0) as chosen_on,
        sum(part) / nullif(sum(whole), 0) as on_all,
    from halved
    group by all
),

best as (
    select run_id, probe, metric, site, floor, layer, head, avg(chosen_on) as chosen_on,
    from choosing
    group by run_id, probe, metric, site, floor, layer, head
    qualify row_number() over (
        partition by run_id, probe, metric, site
        order by avg(chosen_on) desc nulls last, avg(on_all) desc nulls last, layer, head nulls last
    ) = 1
),

kept as (
    select halved.*, best.chosen_on
    from halved
    join best
        on best.run_id = halved.run_id
        and best.probe = halved.probe
        and best.metric = halved.metric
        and best.site = halved.site
        and best.layer = halved.layer
        and best.head is not distinct from halved.head
),

left_out as (
    select run_id, probe, metric, site, count(distinct item) filter (half is null)::integer as left_out
    from kept
    group by all
),

items as (
    select
        {'run_id': run_id, 'probe': probe, 'metric': metric, 'site': site} as figure,
        1 as sign,
        class,
        item,
        units,
        part,
        whole,
    from kept
    where half = 'scores' and (floor or chosen_on is not null)
)

select
    best.run_id,
    best.probe,
    best.metric,
    best.site,
    case when not best.floor then best.layer end as layer,
    best.head,
    case when not best.floor then best.chosen_on end as chosen_on,
    scored.value,
    scored.low,
    scored.high,
    coalesce(scored.n, 0) as n,
    coalesce(scored.units, 0) as units,
    left_out.left_out,
from best
join left_out using (run_id, probe, metric, site)
left join (select figure.*, * exclude (figure) from intervals('items')) scored using (run_id, probe, metric, site)
order by best.run_id, best.probe, best.metric, best.floor, best.site
