-- storage: one row per run: rows and bytes of its vectors, per image, and its share of the store
select
    run_id,
    images,
    rows,
    bytes,
    round(bytes / 1e6, 1) as megabytes,
    round(bytes / nullif(images, 0) / 1e6, 3) as megabytes_per_image,
    round(bytes / nullif(sum(bytes) over (), 0), 4) as share,
from run
where $run is null or run_id = $run
order by bytes desc, run_id
