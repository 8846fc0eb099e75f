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
