-- images: one row per run and image: its names, size and grids
select
    token_grid.run_id,
    token_grid.image_id,
    any_value(names.names) as names,
    any_value(image.width) as width,
    any_value(image.height) as height,
    list(token_grid.rows || ' x ' || token_grid.columns order by token_grid.grid) as grids,
    sum(token_grid.rows * token_grid.columns) as patches,
    any_value(image.sha256) as sha256,
from token_grid
join image using (image_id)
join run using (run_id)
left join (
    select dataset_id, image_id, list(name order by position, name) as names
    from dataset_image
    group by dataset_id, image_id
) as names using (dataset_id, image_id)
where $run is null or token_grid.run_id = $run
group by token_grid.run_id, token_grid.image_id
order by token_grid.run_id, token_grid.image_id
