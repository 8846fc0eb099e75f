-- token_grid_gapless: one row per run and image whose grids are not numbered from 0, each starting where the last ended
with numbered as (
    select
        run_id,
        image_id,
        grid,
        first_patch,
        row_number() over image_grids - 1 as grid_due,
        coalesce(sum(rows * columns) over (image_grids rows between unbounded preceding and 1 preceding), 0)
            as first_patch_due,
    from token_grid
    window image_grids as (partition by run_id, image_id order by grid)
)

select run_id, image_id, min(grid) as first_wrong_grid
from numbered
where grid <> grid_due or first_patch <> first_patch_due
group by run_id, image_id
order by run_id, image_id
