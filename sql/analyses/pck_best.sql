-- pck_best: one row per (run, site, alpha): the best layer and head on one half of the pairs, scored on the other half
-- `chosen_on` is the PCK per point that made it the best, on pairs with an even hash; `value` is its PCK on the rest.
with halves as (
    select
        run_id,
        site,
        alpha,
        layer,
        head,
        sum(hits) filter (hash(pair_id) % 2 = 0) / sum(points) filter (hash(pair_id) % 2 = 0) as chosen_on,
        sum(hits) filter (hash(pair_id) % 2 = 1) / sum(points) filter (hash(pair_id) % 2 = 1) as value,
        count(*) filter (hash(pair_id) % 2 = 1) as pairs,
    from pair_hits($run, [0.05, 0.10, 0.15])
    group by all
)
select run_id, site, alpha, layer, head, chosen_on, value, pairs
from halves
qualify row_number() over (
    partition by run_id, site, alpha order by chosen_on desc nulls last, layer, head nulls last
) = 1
order by all
