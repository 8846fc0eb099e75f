-- key_stat_sound: one row per run, grid with its positions, layer and head whose key moments cannot be true
-- Other images than the run has of that grid, a variance of one image, none of several, or a mean whose square
-- exceeds the mean of the squares.
with grids as (
    select run_id, rows, columns, grid, first_position, row_stride, count(*) as images
    from token_grid
    group by all
)

select
    key_stat.run_id,
    key_stat.rows,
    key_stat.columns,
    key_stat.grid,
    layer,
    head,
    count(*) as positions,
    max(n) as n,
    any_value(coalesce(images, 0)) as images,
from key_stat
join (select run_id, state from run) as runs using (run_id)
left join grids using (run_id, rows, columns, grid, first_position, row_stride)
where n < 1
    or n > coalesce(images, 0)
    or (n < images and state = 'done')
    or (variance is null) <> (n = 1)
    or variance < -1e-3 * mean_square
    or isnan(variance)
group by all
order by all
