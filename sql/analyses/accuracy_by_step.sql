-- accuracy_by_step: one row per (run, condition, method) of models named <model>-step-<n>, and of <model> itself, last
-- Checkpoints are told by their model's name; step is null for the finished model. Of that, runs with the prefix,
-- view and pooling of some checkpoint's run are shown. Figures: see answer_accuracy.
with items as (
    select
        {'run_id': run_id, 'condition': condition, 'method': method} as figure,
        1 as sign,
        '' as class,
        question_id as item,
        units,
        is_right::double as part,
        1.0 as whole,
    from judged_answers($run)
),

judged as (
    select unnest(figure), n, units, value as share, independent_answers(value, n, units, variance) as worth
    from unit_spread('items')
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
    units,
    share as accuracy,
    greatest(wilson_middle(share * worth, worth) - wilson_half(share * worth, worth), 0) as low,
    least(wilson_middle(share * worth, worth) + wilson_half(share * worth, worth), 1) as high,
from named
semi join checkpointed using (model, dataset_id, prefix, view, pool, condition, method)
order by dataset, model, prefix, view, pool, condition, method, step nulls last, run_id
