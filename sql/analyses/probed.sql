-- probed: one row per (run, probe) that has scores: the run's model, and whether it is a vision encoder alone or untrained
select distinct
    run.run_id,
    score.probe,
    run.dataset_id as dataset,
    model.name as model,
    model.layers = 0 as encoder_alone,
    ends_with(model.name, '-untrained') as untrained,
from run
join model using (model_id)
join score using (run_id)
where $run is null or run_id = $run
order by untrained, encoder_alone, run.run_id, score.probe
