-- layer_scores: one row per run, probe, metric, site, layer and head; `best` marks the best head of a layer
with ranked as (
    select
        *,
        row_number() over (
            partition by run_id, probe, metric, site, layer, head is null
            order by value desc nulls last, head
        ) as place,
    from score
    where ($run is null or run_id = $run) and value is not null
)
select
    run_id,
    probe,
    metric,
    site,
    layer,
    head,
    value,
    low,
    high,
    n,
    place = 1 as best,
from ranked
order by run_id, probe, metric, site, layer, head nulls last
