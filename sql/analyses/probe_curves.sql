-- probe_curves: one row per (run, probe, metric, site, layer): the best head's figure with its interval, and all heads'
-- `heads` are the layer's single heads and `figures` theirs, in the same order; `concatenated` is the figure of all heads
-- together. Where a layer has no single heads (input, encoder, floors), head is null and the figure is that of the whole
-- vector. Of the encoder only its best layer stands here. The best of many is an optimistic figure: best_layer has the
-- held-out one.
with ranked as (
    select
        *,
        list(head order by head) filter (head is not null) over layer as heads,
        list(value order by head) filter (head is not null) over layer as figures,
        max(value) filter (head is null) over layer as concatenated,
        row_number() over (
            partition by run_id, probe, metric, site, layer
            order by head is null, value desc, head
        ) as place,
    from score
    where ($run is null or run_id = $run) and value is not null
    window layer as (partition by run_id, probe, metric, site, layer)
),

layers as (
    select
        * exclude (place),
        row_number() over (
            partition by run_id, probe, metric, site order by value desc, layer
        ) as place,
    from ranked
    where place = 1
)

select
    run.dataset_id as dataset,
    layers.probe,
    layers.metric,
    layers.run_id,
    model.name as model,
    ends_with(model.name, '-untrained') as untrained,
    model.layers = 0 as encoder_alone,
    layers.site,
    layers.layer,
    layers.head,
    layers.value,
    layers.low,
    layers.high,
    layers.n,
    layers.units,
    layers.heads,
    layers.figures,
    case when layers.head is not null then layers.concatenated end as concatenated,
from layers
join run using (run_id)
join model using (model_id)
where layers.site <> 'encoder' or layers.place = 1
order by dataset, probe, metric, run_id, site, layer
