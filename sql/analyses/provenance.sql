-- provenance: one row per run, with all that a report must say of where its figures come from
select
    run.run_id,
    model.name as model,
    model.revision as model_revision,
    model.architecture,
    dataset.dataset_id as dataset,
    dataset.fingerprint as dataset_fingerprint,
    run.view,
    run.prefix,
    run.pool,
    run.dtype,
    run.device,
    run.images,
    run.code_version,
from run
join model using (model_id)
join dataset using (dataset_id)
where $run is null or run.run_id = $run
order by run.run_id
