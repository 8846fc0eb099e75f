-- accuracy_by_step: one row per (run, condition, method) of models named <model>-step-<n>, and of <model> itself, last
-- Checkpoints are told by their model's name; step is null for the finished model. Of that, runs with the prefix,
-- view and pooling of some checkpoint's run are shown. Figures: see answer_accuracy.
with judged as (
    select
        answer.run_id,
        answer.condition,
        answer.method,
        count(*) as n,
        count_if(is_right(answer.text, question.answer)) as hits,
    from answer
    join run using (run_id)
    join question using (dataset_id, question_id)
    where $run is null or answer.run_id = $run
    group by all
),

named as (
    select
        judged.*,
        run.dataset_id,
        run.prefix,
        run.view,
        run.pool,
        regexp_replace(model.name, '-step-\d+$', '') as model,
        try_cast(nullif(regexp_extract(model.name, '-step-(\d+)$', 1), '') as integer) as step,
    from judged
    join run using (run_id)
    join model using (model_id)
),

checkpointed as (
    select distinct model, dataset_id, prefix, view, pool, condition, method
    from named
    where step is not null
)

select
    dataset_id as dataset,
    model,
    prefix,
    view,
    pool,
    step,
    run_id,
    condition,
    method,
    n,
    hits / n as accuracy,
    greatest(wilson_middle(hits, n) - wilson_half(hits, n), 0) as low,
    least(wilson_middle(hits, n) + wilson_half(hits, n), 1) as high,
from named
semi join checkpointed using (model, dataset_id, prefix, view, pool, condition, method)
order by dataset, model, prefix, view, pool, condition, method, step nulls last, run_id
