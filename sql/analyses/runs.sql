-- runs: one row per run, newest first: what it is, what it holds, how fast it was made
with refused as (
    select run_id, count(*) as quarantined
    from quarantine
    group by run_id
)
select
    run.run_id,
    model.name as model,
    run.dataset_id as dataset,
    run.view,
    run.prefix,
    array_to_string(run.sites, ', ') as sites,
    len(run.layers) as layers,
    model.layers as model_layers,
    model.kv_heads,
    run.pool,
    run.dtype,
    run.device,
    run.state,
    run.requested,
    run.images,
    coalesce(refused.quarantined, 0) as quarantined,
    run.tokens,
    run.rows,
    run.bytes,
    run.seconds,
    run.images_per_s,
    run.tokens_per_s,
    run.mb_per_s,
    run.limiting_stage,
    run.started_at,
    run.finished_at,
from run
join model using (model_id)
left join refused using (run_id)
where $run is null or run.run_id = $run
order by run.started_at desc, run.run_id
