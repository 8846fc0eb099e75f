-- answer_accuracy: one row per (run, condition, method, kind of question), and one for all kinds together (kind null)
-- accuracy is the share of answers that are right (macro is_right), low and high Wilson's 95 % interval of it, for as many
-- independent answers as it is worth (macro independent_answers): n counts questions, units the images that they share.
-- majority is the most frequent truth among the same questions of the kind, majority_share how often it is true;
-- for all kinds together, the share of questions that are right when every kind is answered by its own majority.
with judged as (
    from judged_answers($run)
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
),

items as (
    select
        {'run_id': run_id, 'condition': condition, 'method': method, 'kind': asked} as figure,
        1 as sign,
        '' as class,
        question_id as item,
        units,
        is_right::double as part,
        1.0 as whole,
    from (select *, unnest([kind, null]) as asked from judged)
),

worth as (
    select unnest(figure), units, independent_answers(value, n, units, variance) as worth
    from unit_spread('items')
)

select
    run_id,
    condition,
    method,
    counted.kind,
    n,
    units,
    hits / n as accuracy,
    greatest(wilson_middle(hits / n * worth, worth) - wilson_half(hits / n * worth, worth), 0) as low,
    least(wilson_middle(hits / n * worth, worth) + wilson_half(hits / n * worth, worth), 1) as high,
    majority,
    majority_n / n as majority_share,
from counted
join worth using (run_id, condition, method)
where counted.kind is not distinct from worth.kind
order by run_id, condition, method, counted.kind nulls last
