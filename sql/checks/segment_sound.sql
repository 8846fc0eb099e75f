-- segment_sound: one row per run, probe and image whose masks are not one bit per patch of grid 0, or that is twice there
with masks as (
    select run_id, probe, image_id, site, layer, head, bit_length(predicted) as predicted, bit_length(truth) as truth
    from segment
)

select
    masks.run_id,
    masks.probe,
    masks.image_id,
    any_value(token_grid.rows * token_grid.columns) as patches,
    min(least(masks.predicted, masks.truth)) as fewest_bits,
    max(greatest(masks.predicted, masks.truth)) as most_bits,
    count(*) as rows,
from masks
join token_grid on token_grid.run_id = masks.run_id and token_grid.image_id = masks.image_id and token_grid.grid = 0
group by masks.run_id, masks.probe, masks.image_id
having fewest_bits <> patches or most_bits <> patches or rows > count(distinct (site, layer, coalesce(head, -1)))
order by all
