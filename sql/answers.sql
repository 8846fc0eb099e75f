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
