-- mask_gallery: one row per (chosen prediction, layer) of a run and probe: the mask by the layer's best head, and the truth
-- `items` predictions (3) are chosen: those that have true pixels, put in order of the IoU that the run's best image value
-- (by $metric; else key, encoder or input) gives them, and of that order those in the middle of as many
-- equal parts: with 3 a bad one, a middling one, a good one. `layers` layers (6) are shown, the first, the last, and others
-- at even steps, each by its best head, and before them the input representation. `predicted` is a mask, or of probes that
-- predict patches (table segment) `bits` are the patches of the grid beside it. `truth` are the annotated masks that make the
-- truth, crowds left out, and `void` those of pixels that do not count.
with scored as (
    select site, layer, head, value
    from score
    where
        run_id = $run
        and probe = $probe
        and metric = $metric
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

predictions as (
    select
        image_id,
        label,
        object_id,
        number,
        site,
        layer,
        head,
        mask::varchar as predicted,
        null as bits,
        shared / nullif(mask.predicted + truth - shared, 0) as iou,
    from mask
    where run_id = $run and probe = $probe and truth > 0 and label <> 'other'
    union all
    select
        image_id,
        probe,
        null,
        0,
        site,
        layer,
        head,
        null,
        predicted::varchar,
        bit_count(predicted & truth) / bit_count(predicted | truth),
    from segment
    where run_id = $run and probe = $probe and bit_count(truth) > 0
),

ranked as (
    select
        p.image_id,
        p.label,
        p.object_id,
        p.number,
        row_number() over (order by p.iou, hash(p.image_id, p.label, p.object_id, p.number)) - 1 as rank,
        count(*) over () as among,
    from predictions p
    join best b on b.site = p.site and b.layer = p.layer and b.head is not distinct from p.head
),

chosen as (
    select *
    from ranked
    where rank in (
        select floor((step + 0.5) * among / coalesce($items, 3))::integer
        from (select max(among) as among from ranked), range(coalesce($items, 3)) steps(step)
    )
)

select
    c.rank + 1 as place,
    c.among,
    image.sha256,
    c.label,
    c.object_id,
    c.number,
    p.site,
    p.layer,
    p.head,
    p.iou,
    best.site as best_site,
    best.layer as best_layer,
    best.head as best_head,
    p.predicted,
    p.bits,
    grid.rows,
    grid.columns,
    grid.x0,
    grid.y0,
    grid.x1,
    grid.y1,
    (
        select list(o.mask::varchar order by o.object_id)
        from object o
        where
            o.dataset_id = r.dataset_id
            and o.image_id = c.image_id
            and o.mask is not null
            and not o.crowd
            and (o.object_id = c.object_id or c.object_id is null and c.label in (o.category, 'foreground'))
    ) as truth,
    (
        select list(v.mask order by v.mask)
        from (
            select dataset_id, image_id, mask::varchar as mask
            from void
            union all
            select dataset_id, image_id, mask::varchar
            from object
            where crowd and mask is not null
        ) v
        where v.dataset_id = r.dataset_id and v.image_id = c.image_id
    ) as void,
from chosen c
join run r on r.run_id = $run
join image on image.image_id = c.image_id
join token_grid grid on grid.run_id = r.run_id and grid.image_id = c.image_id and grid.grid = 0
join predictions p
    on p.image_id = c.image_id
    and p.label = c.label
    and p.object_id is not distinct from c.object_id
    and p.number = c.number
join shown on shown.site = p.site and shown.layer = p.layer and shown.head is not distinct from p.head
cross join best
order by place, p.site <> 'input', p.layer
