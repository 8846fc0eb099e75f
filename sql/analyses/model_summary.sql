-- model_summary: one row per model revision, and how many runs use it
select
    model.name as model,
    model.architecture,
    model.layers,
    model.kv_heads,
    model.query_heads,
    model.key_dim,
    model.value_dim,
    model.hidden_dim,
    model.parameters,
    count(run.run_id) as runs,
    model.revision,
    model.source,
from model
left join run using (model_id)
group by all
order by model.name, model.revision
