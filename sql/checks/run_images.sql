-- run_images: one row per run whose count of images is not that of its images in token_grid
select run.run_id, run.images, count(distinct token_grid.image_id) as images_in_token_grid
from run
left join token_grid using (run_id)
group by run.run_id, run.images
having run.images <> count(distinct token_grid.image_id)
order by run.run_id
