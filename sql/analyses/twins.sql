-- twins: one row per run that has one: the run of its model's untrained twin over the same data set
-- The twin's model has the same name with '-untrained' behind it, and its run the same view, prefix and pooling. Of
-- several the one with most images counts.
select run.run_id, twin.run_id as twin, twin_model.name as model, twin.images
from run
join model on model.model_id = run.model_id
join model as twin_model on twin_model.name = model.name || '-untrained'
join run as twin
    on twin.model_id = twin_model.model_id
    and twin.dataset_id = run.dataset_id
    and twin.view = run.view
    and twin.prefix = run.prefix
    and twin.pool = run.pool
where $run is null or run.run_id = $run
qualify row_number() over (partition by run.run_id order by twin.images desc, twin.run_id) = 1
order by run.run_id
