-- answers: one row per (run, question, condition, method): what was asked, what is true, what was answered
with named as (
    select dataset_id, image_id, min(name) as name
    from dataset_image
    group by dataset_id, image_id
),

shown as (
    select dataset_id, question_id, list(name order by number) as images
    from question_image
    join named using (dataset_id, image_id)
    group by dataset_id, question_id
)

select
    answer.run_id,
    answer.question_id,
    answer.condition,
    answer.method,
    question.kind,
    shown.images,
    question.text as question,
    question.options,
    question.answer as truth,
    answer.text as answer,
    is_right(answer.text, question.answer) as is_right,
    answer.option_likelihoods,
from answer
join run using (run_id)
join question using (dataset_id, question_id)
left join shown using (dataset_id, question_id)
where $run is null or answer.run_id = $run
order by answer.run_id, answer.question_id, answer.condition, answer.method
