-- dataset_summary: one row per data set: images named and stored, annotations, fingerprint
with stored as (
    select run.dataset_id, count(distinct token_grid.image_id) as images_stored
    from run
    join token_grid using (run_id)
    group by run.dataset_id
),

objects as (
    select dataset_id, count(*) as objects, count(distinct category) as categories
    from object
    group by dataset_id
),

keypoints as (
    select dataset_id, count(*) as keypoints
    from keypoint
    group by dataset_id
),

captions as (
    select dataset_id, count(*) as captions
    from caption
    group by dataset_id
),

pairs as (
    select dataset_id, count(*) as pairs
    from pair
    group by dataset_id
)

select
    dataset.dataset_id as dataset,
    dataset.images,
    coalesce(stored.images_stored, 0) as images_stored,
    coalesce(objects.objects, 0) as objects,
    coalesce(objects.categories, 0) as categories,
    coalesce(keypoints.keypoints, 0) as keypoints,
    coalesce(captions.captions, 0) as captions,
    coalesce(pairs.pairs, 0) as pairs,
    dataset.fingerprint,
    dataset.root,
from dataset
left join stored using (dataset_id)
left join objects using (dataset_id)
left join keypoints using (dataset_id)
left join captions using (dataset_id)
left join pairs using (dataset_id)
order by dataset.dataset_id
