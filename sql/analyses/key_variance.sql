-- key_variance: one row per run, shape of grid, layer and head: variance of keys over images
-- The share is taken at each position and then averaged: keys carry the rotary position, so positions and
-- grids are never mixed. `main_grid` marks the run's shape of grid with the most images.
with layers as (
    select
        run_id,
        rows,
        columns,
        grid,
        first_position,
        row_stride,
        layer,
        head,
        min(n) as images,
        count(*) as positions,
        avg(variance) as variance,
        avg(mean_square) as mean_square,
        avg(share) as share,
        quantile_cont(share, 0.1) as share_p10,
        quantile_cont(share, 0.9) as share_p90,
    from key_share($run)
    group by run_id, rows, columns, grid, first_position, row_stride, layer, head
),

grids as (
    select
        run_id,
        rows,
        columns,
        grid,
        first_position,
        row_stride,
        row_number() over (
            partition by run_id
            order by max(images) desc, grid, rows * columns desc, rows desc
        ) = 1 as main_grid,
    from layers
    group by run_id, rows, columns, grid, first_position, row_stride
)

select layers.*, grids.main_grid
from layers
join grids using (run_id, rows, columns, grid, first_position, row_stride)
order by run_id, main_grid desc, rows, columns, grid, first_position, row_stride, layer, head
