-- Macros of answers: when one is right, and the interval of a share of right ones.

-- Whether an answer is right: the same text, upper and lower case, blanks around it and one full stop at its end
-- left aside. An option's letter, or a sentence around the answer, does not count.
create or replace macro plain_answer(answer_text) as trim(regexp_replace(trim(lower(answer_text)), '\.$', ''));
comment on macro plain_answer is 'plain_answer(text): lower case, without blanks around and a full stop at the end';
create or replace macro is_right(answer_text, truth) as plain_answer(answer_text) = plain_answer(truth);
comment on macro is_right is 'is_right(answer_text, truth): the same, case, blanks around and a full stop at the end aside';

-- The ends of Wilson's 95 % interval of a share of `hits` in `n` (Wilson 1927; as in Brown, Cai and DasGupta 2001,
-- equation 4), z = 1.96 to more digits.
create or replace macro wilson_middle(hits, n) as (hits + 1.9207294103) / (n + 3.8414588207);
comment on macro wilson_middle is 'wilson_middle(hits, n): middle of Wilson''s 95 % interval';
create or replace macro wilson_half(hits, n) as
    1.9599639845 * sqrt(hits * (n - hits) / n + 0.9603647052) / (n + 3.8414588207);
comment on macro wilson_half is 'wilson_half(hits, n): half the width of Wilson''s 95 % interval';

-- How many independent answers a share is worth whose n answers share units: n over the design effect, which is the
-- variance over units (macro unit_spread) over that of independent answers, with Student's t of n and of the units (Korn
-- and Graubard 1998); never more than n. Where all answers are right, or all wrong, nothing tells how alike those of one
-- unit are: then it is the number of units.
create or replace macro independent_answers(share, n, units, variance) as case
    when units = 1 then 1
    when share in (0, 1) then units
    else least(n, n * share * (1 - share) * n / (n - 1) ** 2 / variance * (student(n - 1) / student(units - 1)) ** 2)
end;
comment on macro independent_answers is 'independent_answers(share, n, units, variance): the n of independent answers that a share is worth';

-- One row per (run, question, condition, method): an answer, whether it is right, and its units, the question's images. A
-- run of null means all.
create or replace macro judged_answers(run) as table (
    with shown as (
        select dataset_id, question_id, list_sort(list(distinct image_id::bigint)) as units
        from question_image
        group by dataset_id, question_id
    )

    select
        a.run_id,
        a.question_id,
        a.condition,
        a.method,
        q.kind,
        plain_answer(q.answer) as truth,
        is_right(a.text, q.answer) as is_right,
        coalesce(s.units, [-1 - a.question_id::bigint]) as units,
    from answer a
    join run r using (run_id)
    join question q on q.dataset_id = r.dataset_id and q.question_id = a.question_id
    left join shown s on s.dataset_id = q.dataset_id and s.question_id = q.question_id
    where run is null or a.run_id = run
);
comment on macro table judged_answers is 'judged_answers(run): answers, whether they are right, and the images that their questions share';
