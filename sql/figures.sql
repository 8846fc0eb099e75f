-- Macros that analyses share: what a figure counts, defined once.

-- One row per (run, probe, site, layer, head, image): patches in both the prediction and the truth, patches in
-- either. A run of null means all. The site position is a floor (see segment.site), and so is chance: every patch is
-- taken for foreground. No guess of a constant rate p does better: with a share b of foreground its IoU is
-- pb / (b + p(1 - b)), which rises with p.
create or replace macro mask_overlaps(run) as table (
    select
        run_id,
        probe,
        site,
        layer,
        head,
        image_id,
        bit_count(predicted & truth) as both_patches,
        bit_count(predicted | truth) as either_patches,
    from segment
    where run is null or run_id = run
    union all
    select run_id, probe, 'chance', 0::smallint, null, image_id, bit_count(truth), bit_length(truth)
    from segment
    where site = 'position' and (run is null or run_id = run)
);
comment on macro table mask_overlaps is 'mask_overlaps(run): patches in the intersection and the union, per run, probe, site, layer, head and image';

-- One row per (run, probe, site, layer, head, image, label, object, number): pixel counts of table mask, and of the
-- floor chance beside them, exact. A run or a probe of null means all. Chance takes every pixel for the object (no guess of
-- a constant rate does better, see mask_overlaps); of semantic segmentation it is what a label drawn at random for each
-- pixel would get on average, in every image and for every label.
create or replace macro pixel_counts(run, of_probe) as table (
    with counted as (
        select * exclude (mask)
        from mask
        where (run is null or run_id = run) and (of_probe is null or probe = of_probe)
    ),

    labels as (
        select run_id, probe, label, count(*) over (partition by run_id, probe) as among
        from (
            select distinct run_id, probe, label
            from counted
            where site = 'position' and probe = 'semantic-segmentation'
        )
    ),

    drawn as (
        select
            c.run_id,
            c.probe,
            c.image_id,
            l.label,
            any_value(l.among) as among,
            any_value(c.valid) as valid,
            coalesce(any_value(c.truth) filter (c.label = l.label), 0) as truth,
        from counted c
        join labels l using (run_id, probe)
        where c.site = 'position'
        group by c.run_id, c.probe, c.image_id, l.label
    )

    select * replace (predicted::double as predicted, shared::double as shared)
    from counted
    union all by name
    select
        * exclude (among),
        null::bigint as object_id,
        0 as number,
        'chance' as site,
        0::smallint as layer,
        null::smallint as head,
        valid / among as predicted,
        truth / among as shared,
    from drawn
    union all by name
    select
        counted.* replace (
            'chance' as site,
            valid::double as predicted,
            truth::double as shared,
            0 as x0,
            0 as y0,
            image.width as x1,
            image.height as y1,
            case when contour is not null then 0 end as contour,
            case when contour is not null then 0 end as contour_hits,
            case when contour is not null then 0 end as true_contour_hits
        ),
    from counted
    join image using (image_id)
    where site = 'position' and probe <> 'semantic-segmentation'
);
comment on macro table pixel_counts is 'pixel_counts(run, probe): pixels predicted, true and both, per prediction of table mask, and by chance';

-- One row per (run, probe, site, layer, head, clip''s object), of tracking and its variant: J and F of DAVIS 2017, means over the frames that count (all
-- but the first and the last). J of a frame is intersection over union, 1 where both are empty. F is the harmonic mean
-- of contour precision and recall (Perazzi et al. 2016): of a contour without pixels all are within reach.
create or replace macro tracked(run, of_probe := null) as table (
    with ends as (
        select dataset_id, clip, min(number) as first, max(number) as last from frame group by dataset_id, clip
    ),

    frames as (
        select
            c.run_id,
            c.probe,
            c.site,
            c.layer,
            c.head,
            c.label as clip,
            c.object_id,
            case when predicted + truth = shared then 1 else shared / (predicted + truth - shared) end as j,
            case when contour > 0 then contour_hits / contour else 1 end as precision,
            case when true_contour > 0 then true_contour_hits / true_contour else 1 end as recall,
        from pixel_counts(run, of_probe) c
        join run r using (run_id)
        join ends e on e.dataset_id = r.dataset_id and e.clip = c.label
        where c.probe in ('tracking', 'tracking-void-out') and c.number > e.first and c.number < e.last
    )

    select
        run_id,
        probe,
        site,
        layer,
        head,
        clip,
        object_id,
        avg(j) as j,
        avg(case when precision + recall > 0 then 2 * precision * recall / (precision + recall) else 0 end) as f,
    from frames
    group by run_id, probe, site, layer, head, clip, object_id
);
comment on macro table tracked is 'tracked(run, probe): J and F of DAVIS 2017 per site, layer, head and object of a clip';

-- One row per (run, probe, metric, site, layer, head, class, item): what every figure is made of. The figure is the mean
-- over classes of the sum of `part` over the sum of `whole`. `units` are what the item depends on, sorted: items that share
-- one are not independent, and the bootstrap draws units (macro intervals). A run or a probe of null means all. There is one
-- class, '', where none is named here.
--     correspondence         items are pairs, units their two images: pck@a weighs keypoints alike, pck_image@a weighs
--                            pairs alike (correspondence-bilinear likewise)
--     foreground             items and units are images: iou is all intersections over all unions, iou_image weighs images
--                            alike and leaves out an image whose union is empty
--     tracking               items are objects of clips, units clips: j, f and their mean jf (DAVIS 2017;
--                            tracking-void-out likewise)
--     fewshot-segmentation   items are episodes, units their query images (support images teach, and are not scored): miou
--                            over the categories; fb_iou over foreground and background
--     cosegmentation         items and units are images, classes are groups: jaccard, and precision, the share of pixels
--                            that are right (Rubinstein et al. 2013)
--     semantic-segmentation  items and units are images: miou over the categories and other
--     referring              items are expressions, units their images: miou weighs expressions alike, oiou is all
--                            intersections over all unions, box@0.50 is the share whose box overlaps the object's by an IoU
--                            of at least 0.5
create or replace macro figure_items(run, of_probe) as table (
    with hits as (
        select h.*, list_sort(list_distinct([p.source_image_id, p.target_image_id]))::bigint[] as units
        from pair_hits(run, [0.05, 0.10, 0.15]) h
        join run r using (run_id)
        join pair p on p.dataset_id = r.dataset_id and p.pair_id = h.pair_id
        where of_probe is null or of_probe = h.probe
    ),

    covered as (
        from mask_overlaps(run)
        where of_probe is null or of_probe = probe
    ),

    counts as (
        select
            *,
            [image_id::bigint] as units,
            predicted + truth - shared as either,
            (hash(image_id, object_id, number) >> 1)::bigint as expression,
        from pixel_counts(run, of_probe)
    ),

    -- Where background counts, the better of the two constant guesses takes nothing for the object.
    guesses as (
        select
            * replace (
                case when site = 'chance' then 0 else shared end as shared,
                case when site = 'chance' then truth else either end as either
            ),
        from counts
    ),

    boxes as (
        select
            c.run_id,
            c.site,
            c.layer,
            c.head,
            c.expression,
            c.units,
            greatest(least(c.x1, o.x1) - greatest(c.x0, o.x0), 0)
            * greatest(least(c.y1, o.y1) - greatest(c.y0, o.y0), 0) as overlap,
            (c.x1 - c.x0) * (c.y1 - c.y0) + (o.x1 - o.x0) * (o.y1 - o.y0) - overlap as whole,
        from counts c
        join run r using (run_id)
        join object o
            on o.dataset_id = r.dataset_id
            and o.object_id = c.object_id
            and o.image_id = c.image_id
        where c.probe = 'referring'
    ),

    objects as (
        from tracked(run, of_probe)
        where of_probe is null or of_probe = probe
    )

    select
        run_id,
        probe,
        'pck@' || printf('%.2f', alpha) as metric,
        site,
        layer,
        head,
        '' as class,
        pair_id::bigint as item,
        units,
        hits as part,
        points::double as whole,
    from hits
    union all
    select
        run_id,
        probe,
        'pck_image@' || printf('%.2f', alpha),
        site,
        layer,
        head,
        '',
        pair_id,
        units,
        hits / points,
        1.0,
    from hits
    union all
    select run_id, probe, 'iou', site, layer, head, '', image_id, [image_id::bigint], both_patches, either_patches
    from covered
    union all
    select run_id, probe, 'iou_image', site, layer, head, '', image_id, [image_id::bigint], both_patches / either_patches, 1.0
    from covered
    where either_patches > 0
    union all
    select run_id, probe, metric, site, layer, head, '', object_id, [(hash(clip) >> 1)::bigint], part, 1.0
    from (select *, (j + f) / 2 as jf from objects)
    unpivot (part for metric in (j, f, jf))
    union all
    select run_id, probe, 'miou', site, layer, head, label, number, units, shared, either
    from counts
    where probe = 'fewshot-segmentation'
    union all
    select run_id, probe, 'fb_iou', site, layer, head, 'foreground', number, units, shared, either
    from guesses
    where probe = 'fewshot-segmentation'
    union all
    select run_id, probe, 'fb_iou', site, layer, head, 'background', number, units, valid - either, valid - shared
    from guesses
    where probe = 'fewshot-segmentation'
    union all
    select
        run_id,
        probe,
        'jaccard',
        site,
        layer,
        head,
        label,
        image_id,
        units,
        case when either > 0 then shared / either else 1 end,
        1.0,
    from counts
    where probe = 'cosegmentation'
    union all
    select run_id, probe, 'precision', site, layer, head, label, image_id, units, (valid - either + shared) / valid, 1.0
    from guesses
    where probe = 'cosegmentation' and valid > 0
    union all
    select run_id, probe, 'miou', site, layer, head, label, image_id, units, shared, either
    from counts
    where probe = 'semantic-segmentation'
    union all
    select
        run_id,
        probe,
        'miou',
        site,
        layer,
        head,
        '',
        expression,
        units,
        case when either > 0 then shared / either else 1 end,
        1.0,
    from counts
    where probe = 'referring'
    union all
    select run_id, probe, 'oiou', site, layer, head, '', expression, units, shared, either
    from counts
    where probe = 'referring'
    union all
    select
        run_id,
        'referring',
        'box@0.50',
        site,
        layer,
        head,
        '',
        expression,
        units,
        case when overlap >= 0.5 * whole then 1.0 else 0.0 end,
        1.0,
    from boxes
);
comment on macro table figure_items is 'figure_items(run, probe): units, part and whole of every item and class of every figure; the mean over classes of sum(part) / sum(whole) is the figure';
