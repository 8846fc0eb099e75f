-- key_stat_sound: one row per run, shape of grid, layer and head whose key moments cannot be true
-- More images than the run has of that grid, or a mean whose square exceeds the mean of the squares.
with grids as (
    select run_id, rows, columns, grid, count(*) as images
    from token_grid
    group by run_id, rows, columns, grid
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
left join grids using (run_id, rows, columns, grid)
where n > coalesce(images, 0) or n < 1 or variance < -1e-3 * mean_square or isnan(variance)
group by all
order by all
