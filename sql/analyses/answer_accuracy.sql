-- answer_accuracy: one row per (run, condition, method, kind of question), and one for all kinds together (kind null)
-- accuracy is the share of answers that are right (macro is_right), low and high Wilson's 95 % interval of it.
-- majority is the most frequent truth among the same questions of the kind, majority_share how often it is true;
-- for all kinds together, the share of questions that are right when every kind is answered by its own majority.
with judged as (
    select
        answer.run_id,
        answer.condition,
        answer.method,
        question.kind,
        plain_answer(question.answer) as truth,
        is_right(answer.text, question.answer) as is_right,
    from answer
    join run using (run_id)
    join question using (dataset_id, question_id)
    where $run is null or answer.run_id = $run
),

truths as (
    select run_id, condition, method, kind, truth, count(*) as n, count_if(is_right) as hits
    from judged
    group by all
),

kinds as (
    select
        run_id,
        condition,
        method,
        kind,
        sum(n)::bigint as n,
        sum(hits)::bigint as hits,
        first(truth order by n desc, truth) as majority,
        max(n) as majority_n,
    from truths
    group by all
),

counted as (
    from kinds
    union all by name
    select
        run_id,
        condition,
        method,
        null as kind,
        sum(n)::bigint as n,
        sum(hits)::bigint as hits,
        null as majority,
        sum(majority_n)::bigint as majority_n,
    from kinds
    group by run_id, condition, method
)

select
    run_id,
    condition,
    method,
    kind,
    n,
    hits / n as accuracy,
    greatest(wilson_middle(hits, n) - wilson_half(hits, n), 0) as low,
    least(wilson_middle(hits, n) + wilson_half(hits, n), 1) as high,
    majority,
    majority_n / n as majority_share,
from counted
order by run_id, condition, method, kind nulls last
