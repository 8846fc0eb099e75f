-- key_variance: one row per run, shape of grid, layer and head: variance of keys over images
-- The share is taken at each position and then averaged: keys carry the rotary position, so positions and
-- grids are never mixed. `main_grid` marks the run's shape of grid with the most images.
with shaped as (
    select
        *,
        case when mean_square > 0 then greatest(variance, 0) / mean_square else 0 end as share_here,
    from key_stat
    where $run is null or run_id = $run
),

layers as (
    select
        run_id,
        rows,
        columns,
        grid,
        layer,
        head,
        min(n) as images,
        count(*) as positions,
        avg(variance) as variance,
        avg(mean_square) as mean_square,
        avg(share_here) as share,
        quantile_cont(share_here, 0.1) as share_p10,
        quantile_cont(share_here, 0.9) as share_p90,
    from shaped
    group by run_id, rows, columns, grid, layer, head
),

grids as (
    select
        run_id,
        rows,
        columns,
        grid,
        row_number() over (
            partition by run_id
            order by max(images) desc, grid, rows * columns desc, rows desc
        ) = 1 as main_grid,
    from layers
    group by run_id, rows, columns, grid
)

select layers.*, grids.main_grid
from layers
join grids using (run_id, rows, columns, grid)
order by run_id, main_grid desc, rows, columns, grid, layer, head
