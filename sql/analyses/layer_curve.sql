-- layer_curve: one row per (run, probe, metric, site, layer): the best head's figure with its interval
-- Where a layer has figures of its single heads, `head` is the best of them and `concatenated` the figure of all
-- heads together; where it has none (input, encoder, floors), head is null and the figure is that of the whole vector.
-- The best of many is an optimistic figure: `heads` says of how many, best_layer gives the held-out one.
with ranked as (
    select
        *,
        max(value) filter (head is null) over layer as concatenated,
        count(head) over layer as heads,
        row_number() over (
            partition by run_id, probe, metric, site, layer
            order by head is null, value desc nulls last, head
        ) as place,
    from score
    where $run is null or run_id = $run
    window layer as (partition by run_id, probe, metric, site, layer)
)
select run_id, probe, metric, site, layer, head, value, low, high, n, units, heads, concatenated
from ranked
where place = 1
order by run_id, probe, metric, site, layer
