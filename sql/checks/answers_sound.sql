-- answers_sound: one row per answer that is of no run, question or condition, about an image that the run lacks, or whose likelihoods do not fit
with judged as (
    select
        answer.run_id,
        answer.question_id,
        answer.condition,
        answer.method,
        run.run_id is null as no_run,
        question.question_id is null as no_question,
        condition.condition is null as no_condition,
        case answer.method
            when 'greedy' then answer.option_likelihoods is not null
            when 'likelihood' then
                not coalesce(
                    len(answer.option_likelihoods) = len(question.options)
                    and answer.text = question.options[list_position(
                        answer.option_likelihoods, list_max(answer.option_likelihoods)
                    )],
                    false
                )
            else true
        end as no_sense,
        count(*) over (
            partition by answer.run_id, answer.question_id, answer.condition, answer.method
        ) > 1 as twice,
    from answer
    left join run using (run_id)
    left join question on question.dataset_id = run.dataset_id and question.question_id = answer.question_id
    left join condition on condition.condition = answer.condition
),

stored as (
    select distinct run_id, image_id
    from token_grid
),

blind as (
    select distinct answer.run_id, answer.question_id
    from answer
    join run using (run_id)
    join question_image using (dataset_id, question_id)
    anti join stored on stored.run_id = answer.run_id and stored.image_id = question_image.image_id
)

select judged.*, blind.run_id is not null as no_image
from judged
left join blind using (run_id, question_id)
where no_run or no_question or no_condition or no_sense or twice or blind.run_id is not null
order by run_id, question_id, condition, method
