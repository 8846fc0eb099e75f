-- runs: one row per run: what it is made of and how far it is
select
    run.run_id,
    run.state,
    run.images,
    run.requested,
    model.name as model,
    run.dataset_id as dataset,
    run.view,
    array_to_string(run.sites, ', ') as sites,
    len(run.layers) as layers,
    model.kv_heads as heads,
    run.rows,
    run.bytes,
    run.started_at,
    run.finished_at,
from run
left join model using (model_id)
where $run is null or run.run_id = $run
order by run.run_id
