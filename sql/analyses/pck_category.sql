-- pck_category: one row per (run, probe, category, site, layer, head, alpha): PCK of one category of object
select
    run_id,
    probe,
    category,
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
