-- pck: one row per (run, probe, site, layer, head, alpha): share of keypoints matched within alpha x the object's longer side
-- The prediction is the centre of the matched patch, of correspondence-bilinear a pixel. `point` weighs keypoints alike, `image` weighs pairs alike.
select
    run_id,
    probe,
    site,
    layer,
    head,
    alpha,
    sum(hits) / sum(points) as point,
    avg(hits / points) as image,
    sum(points)::bigint as points,
    count(*) as pairs,
from pair_hits($run, [0.05, 0.10, 0.15])
group by all
order by all
