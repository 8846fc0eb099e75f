-- bootstrap: one row per (run, probe, metric, site, layer, head): a figure and its bootstrap 95 % interval over units
-- What a figure, its classes, its items and their units are stands at macro figure_items, how the interval is made at macro
-- intervals; `n` counts items, `units` what is drawn. A probe or a run of null means all. Sites position and chance are
-- floors. 200 pairs x 128 image values take a second on two cores, 12,234 pairs x 112 image values a minute and 2 GB.
with items as (
    select
        {
            'run_id': run_id,
            'probe': probe,
            'metric': metric,
            'site': site,
            'layer': layer,
            'head': head
        } as figure,
        1 as sign,
        class,
        item,
        units,
        part,
        whole,
    from figure_items($run, $probe)
)

select figure.*, value, low, high, n, units
from intervals('items')
order by all
