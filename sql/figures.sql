-- Macros that analyses share: what a figure counts, defined once.

-- One row per (run, site, layer, head, pair, alpha): keypoints of the pair, and how many of them were matched
-- within alpha x the longer side of the target object's box (PCK: Yang and Ramanan 2013; on SPair-71k with the
-- box as the scale: Min et al. 2019). A run of null means all. Matches are grouped before alphas multiply them.
create or replace macro pair_hits(run, alphas) as table (
    with paired as (
        select
            m.run_id,
            m.site,
            m.layer,
            m.head,
            m.pair_id,
            any_value(p.category) as category,
            count(*) as points,
            list(
                sqrt((m.x - k.target_x) ** 2 + (m.y - k.target_y) ** 2)
                / greatest(p.target_x1 - p.target_x0, p.target_y1 - p.target_y0)
            ) as errors,
        from match m
        join run r using (run_id)
        join pair p on p.dataset_id = r.dataset_id and p.pair_id = m.pair_id
        join pair_keypoint k on k.dataset_id = r.dataset_id and k.pair_id = m.pair_id and k.name = m.name
        where run is null or m.run_id = run
        group by m.run_id, m.site, m.layer, m.head, m.pair_id
    )
    select
        * exclude (errors),
        list_count(list_filter(errors, lambda error: error <= alpha)) as hits,
    from paired
    cross join (select unnest(alphas::double[]) as alpha) thresholds
);
comment on macro table pair_hits is 'pair_hits(run, alphas): keypoints matched per run, site, layer, head, pair and alpha';

-- Weights of one bootstrap resample of `items` items, each drawn from Poisson(1) (Chamandy et al. 2012: the
-- bootstrap's limit for many items; with n items its spread is about 1/(2n) wider). Made from a hash of the
-- resample's number and the item's, so that figures never change and all figures share their resamples.
create or replace macro poisson_weights(number, items) as list_transform(
    list_transform(range(items), lambda item: hash(number * 4294967296 + item) / 18446744073709551616.0),
    lambda p: case
        when p < 0.36787944117144233 then 0.0
        when p < 0.73575888234288464 then 1.0
        when p < 0.91969860292860580 then 2.0
        when p < 0.98101184312384620 then 3.0
        when p < 0.99634015317265630 then 4.0
        when p < 0.99940581518241830 then 5.0
        when p < 0.99991675885071200 then 6.0
        when p < 0.99998975080332540 then 7.0
        else 8.0
    end::double
);
comment on macro poisson_weights is 'poisson_weights(number, items): weights of the items in one bootstrap resample';
