-- Macros of keypoints: which matches are near enough to the truth, and what chance would match.

-- One row per (run, probe, pair, alpha): what a patch drawn at random from the target image's grid would match, with the
-- columns of pair_hits. Exact: of each keypoint that was matched, the share of all patches whose centre lies near
-- enough to the truth. Of correspondence-bilinear a pixel is drawn, and its place is that of its upper left corner.
create or replace macro chance_hits(run, alphas) as table (
    with keypoints as (
        select
            m.run_id,
            m.probe,
            m.pair_id,
            p.category,
            k.target_x,
            k.target_y,
            greatest(p.target_x1 - p.target_x0, p.target_y1 - p.target_y0) as scale,
            m.probe = 'correspondence-bilinear' as pixels,
            case when pixels then i.height else g.rows end as rows,
            case when pixels then i.width else g.columns end as columns,
            case when pixels then -0.5 else g.x0 end as x0,
            case when pixels then -0.5 else g.y0 end as y0,
            case when pixels then i.width else g.x1 - g.x0 end as width,
            case when pixels then i.height else g.y1 - g.y0 end as height,
        from match m
        join run r using (run_id)
        join pair p on p.dataset_id = r.dataset_id and p.pair_id = m.pair_id
        join pair_keypoint k on k.dataset_id = r.dataset_id and k.pair_id = m.pair_id and k.name = m.name
        join token_grid g on g.run_id = m.run_id and g.image_id = p.target_image_id and g.grid = 0
        join image i on i.image_id = p.target_image_id
        where m.site = 'position' and (run is null or m.run_id = run)
    ),

    -- In each row of patches that the circle around the truth reaches: the columns within half a chord of its middle.
    rows_near as (
        select
            *,
            list_transform(
                list_filter(
                    list_transform(range(rows), lambda line: y0 + (line + 0.5) * height / rows - target_y),
                    lambda away: abs(away) <= alpha * scale
                ),
                lambda away: sqrt((alpha * scale - away) * (alpha * scale + away)) / width * columns
            ) as half_chords,
            (target_x - x0) / width * columns - 0.5 as middle,
        from keypoints
        cross join (select unnest(alphas::double[]) as alpha) thresholds
    ),

    shares as (
        select
            run_id,
            probe,
            pair_id,
            category,
            alpha,
            coalesce(
                list_sum(
                    list_transform(
                        half_chords,
                        lambda half: greatest(
                            least(floor(middle + half), columns - 1) - greatest(ceil(middle - half), 0) + 1, 0
                        )
                    )
                ),
                0
            ) / (rows * columns) as share,
        from rows_near
    )

    select
        run_id,
        probe,
        'chance' as site,
        0::smallint as layer,
        null::smallint as head,
        pair_id,
        any_value(category) as category,
        count(*) as points,
        alpha,
        sum(share) as hits,
    from shares
    group by run_id, probe, pair_id, alpha
);
comment on macro table chance_hits is 'chance_hits(run, alphas): keypoints that a random patch would match, per run, probe, pair and alpha';

-- One row per (run, probe, site, layer, head, pair, alpha): keypoints of the pair, and how many of them were matched
-- within alpha x the longer side of the target object's box (PCK: Yang and Ramanan 2013; on SPair-71k with the
-- box as the scale: Min et al. 2019). A run of null means all. Matches are grouped before alphas multiply them.
-- The sites position and chance are floors: match.site says what the first is, chance_hits the second.
create or replace macro pair_hits(run, alphas) as table (
    with paired as (
        select
            m.run_id,
            m.probe,
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
        group by m.run_id, m.probe, m.site, m.layer, m.head, m.pair_id
    )

    select
        * exclude (errors),
        list_count(list_filter(errors, lambda error: error <= alpha))::double as hits,
    from paired
    cross join (select unnest(alphas::double[]) as alpha) thresholds
    union all by name
    from chance_hits(run, alphas)
);
comment on macro table pair_hits is 'pair_hits(run, alphas): keypoints matched per run, probe, site, layer, head, pair and alpha';
