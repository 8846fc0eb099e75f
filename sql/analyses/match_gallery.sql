-- match_gallery: one row per (chosen keypoint, layer) of a run: where the layer's best head finds it, with the pictures
-- `pairs` keypoints (6) are chosen: of every pair the one with the least hash, those put in order of the error that the
-- run's best image value (`best_layer`, `best_head`, by pck@0.10; else key, encoder or input) makes on them, and of
-- that order the first, the last, and others at even steps. `layers` layers (6) are shown, the first, the last, and others
-- at even steps, each by its best head, and before them the input representation. An error is the distance to the truth
-- over the longer side of the target object's box; up to 0.10 it counts as a match. `probe` (correspondence) is the variant.
with scored as (
    select site, layer, head, value
    from score
    where
        run_id = $run
        and probe = coalesce($probe, 'correspondence')
        and metric = 'pck@0.10'
        and site in ('value', 'key', 'encoder', 'input')
    qualify row_number() over (partition by site, layer order by value desc nulls last, head) = 1
),

site_shown as (
    select site
    from scored
    order by list_position(['value', 'key', 'encoder', 'input'], site)
    limit 1
),

layers as (
    select
        *,
        row_number() over (order by layer) - 1 as rank,
        count(*) over () - 1 as most,
    from scored
    where site = (from site_shown)
),

steps as (
    select distinct round(step * most / greatest(least(coalesce($layers, 6) - 1, most), 1))::integer as rank
    from (select max(most) as most from layers), range(coalesce($layers, 6)) steps(step)
    where step <= most
),

shown as (
    select site, layer, head
    from layers
    semi join steps using (rank)
    union
    select site, layer, head
    from scored
    where site = 'input'
),

best as (
    select site, layer, head
    from layers
    order by value desc nulls last, layer
    limit 1
),

found as (
    select
        m.pair_id,
        m.name,
        m.site,
        m.layer,
        m.head,
        m.patch,
        m.x,
        m.y,
        greatest(p.target_x1 - p.target_x0, p.target_y1 - p.target_y0) as side,
        sqrt((m.x - k.target_x) ** 2 + (m.y - k.target_y) ** 2) / side as error,
    from match m
    join run r using (run_id)
    join pair p using (dataset_id, pair_id)
    join pair_keypoint k using (dataset_id, pair_id, name)
    where m.run_id = $run and m.probe = coalesce($probe, 'correspondence')
),

of_pairs as (
    select f.pair_id, f.name, f.error
    from found f
    join best b on b.site = f.site and b.layer = f.layer and b.head is not distinct from f.head
    qualify row_number() over (partition by f.pair_id order by hash(f.pair_id, f.name)) = 1
),

ranked as (
    select
        pair_id,
        name,
        row_number() over (order by error, hash(pair_id, name)) - 1 as rank,
        count(*) over () - 1 as most,
    from of_pairs
),

chosen as (
    select *
    from ranked
    where rank in (
        select round(step * most / greatest(least(coalesce($pairs, 6) - 1, most), 1))::integer
        from (select max(most) as most from ranked), range(coalesce($pairs, 6)) steps(step)
        where step <= most
    )
),

-- A patch's box within its grid.
placed as (
    select
        f.*,
        c.rank,
        c.most,
        p.category,
        k.source_x,
        k.source_y,
        k.target_x,
        k.target_y,
        p.source_image_id,
        p.target_image_id,
        (f.patch - t.first_patch) % t.columns as column_at,
        (f.patch - t.first_patch) // t.columns as row_at,
        (t.x1 - t.x0) / t.columns as wide,
        (t.y1 - t.y0) / t.rows as high,
        t.x0 as left_edge,
        t.y0 as top_edge,
        (s.x1 - s.x0) / s.columns as source_wide,
        (s.y1 - s.y0) / s.rows as source_high,
        least(greatest(floor((k.source_x - s.x0) / source_wide), 0), s.columns - 1) as source_column,
        least(greatest(floor((k.source_y - s.y0) / source_high), 0), s.rows - 1) as source_row,
        s.x0 as source_left,
        s.y0 as source_top,
    from found f
    join chosen c using (pair_id, name)
    join shown on shown.site = f.site and shown.layer = f.layer and shown.head is not distinct from f.head
    join run r on r.run_id = $run
    join pair p on p.dataset_id = r.dataset_id and p.pair_id = f.pair_id
    join pair_keypoint k on k.dataset_id = r.dataset_id and k.pair_id = f.pair_id and k.name = f.name
    join token_grid t on t.run_id = r.run_id and t.image_id = p.target_image_id and t.grid = 0
    join token_grid s on s.run_id = r.run_id and s.image_id = p.source_image_id and s.grid = 0
)

select
    placed.rank + 1 as place,
    placed.most + 1 as pairs,
    placed.pair_id,
    placed.category,
    placed.name,
    placed.site,
    placed.layer,
    placed.head,
    placed.error,
    placed.error <= 0.10 as hit,
    best.site as best_site,
    best.layer as best_layer,
    best.head as best_head,
    source.sha256 as source,
    source_left + source_column * source_wide as source_x0,
    source_top + source_row * source_high as source_y0,
    source_left + (source_column + 1) * source_wide as source_x1,
    source_top + (source_row + 1) * source_high as source_y1,
    source_x,
    source_y,
    target.sha256 as target,
    left_edge + column_at * wide as x0,
    top_edge + row_at * high as y0,
    left_edge + (column_at + 1) * wide as x1,
    top_edge + (row_at + 1) * high as y1,
    placed.x,
    placed.y,
    target_x,
    target_y,
    0.10 * side as reach,
from placed
cross join best
join image source on source.image_id = source_image_id
join image target on target.image_id = target_image_id
order by place, placed.site <> 'input', placed.layer
