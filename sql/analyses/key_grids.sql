-- key_grids: one row per run that stores keys and grid with its positions: its images, and those in the key statistics
-- Sums are kept up to a bound, grid by grid as they are met: `counted` is 0 of a grid that came after it.
with stats as (
    select run_id, rows, columns, grid, first_position, row_stride, any_value(n) as counted
    from key_stat
    group by all
),

grids as (
    select run_id, rows, columns, grid, first_position, row_stride, count(*) as images
    from token_grid
    join (select run_id, sites from run) as runs using (run_id)
    where list_contains(runs.sites, 'key') and ($run is null or run_id = $run)
    group by all
)

select grids.*, coalesce(counted, 0) as counted
from grids
left join stats using (run_id, rows, columns, grid, first_position, row_stride)
order by run_id, images desc, rows, columns, grid
