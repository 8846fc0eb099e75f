-- pck_best: one row per (run, site, alpha): the best layer and head on one half of the pairs, scored on the other half
-- `chosen_on` is the PCK per point that made it the best, on pairs with an even hash; `value` is its PCK on the rest,
-- with a bootstrap 95 % interval over those pairs (macro poisson_weights, 1000 resamples).
with hits as (
    select *, hash(pair_id) % 2 = 0 as chooses,
    from pair_hits($run, [0.05, 0.10, 0.15])
),

best as (
    select run_id, site, alpha, layer, head, sum(hits) / sum(points) as chosen_on,
    from hits
    where chooses
    group by run_id, site, alpha, layer, head
    qualify row_number() over (
        partition by run_id, site, alpha order by chosen_on desc, layer, head nulls last
    ) = 1
),

held_out as (
    select
        best.*,
        sum(hits.hits) / sum(hits.points) as value,
        count(hits.pair_id) as pairs,
        list(hits.hits::double order by hits.pair_id) filter (hits.pair_id is not null) as hits,
        list(hits.points::double order by hits.pair_id) filter (hits.pair_id is not null) as points,
    from best
    left join hits
        on hits.run_id = best.run_id
        and hits.site = best.site
        and hits.alpha = best.alpha
        and hits.layer = best.layer
        and hits.head is not distinct from best.head
        and not hits.chooses
    group by all
),

resampled as (
    select
        *,
        list_inner_product(hits, poisson_weights(resample, pairs))
        / nullif(list_inner_product(points, poisson_weights(resample, pairs)), 0) as resampled,
    from held_out
    cross join range(1000) as resamples(resample)
)

select
    run_id,
    site,
    alpha,
    layer,
    head,
    chosen_on,
    value,
    quantile_cont(resampled, 0.025) as low,
    quantile_cont(resampled, 0.975) as high,
    pairs,
from resampled
group by all
order by all
