-- load_notes: one row per data set, outcome and kind: how much was read, left out or mended, and where the first is
with wanted as (
    select dataset_id
    from dataset
    where
        ($dataset is null or dataset_id = $dataset)
        and ($run is null or dataset_id in (select dataset_id from run where run_id = $run))
),

-- what the catalog holds of each data set by now
held as (
    select dataset_id, 1 as number, 'images' as kind, count(distinct name) as count
    from dataset_image
    group by dataset_id
    union all
    select dataset_id, 2, 'objects', count(*) from object group by dataset_id
    union all
    select dataset_id, 3, 'masks', count(mask) from object group by dataset_id
    union all
    select dataset_id, 4, 'keypoints', count(*) from keypoint group by dataset_id
    union all
    select dataset_id, 5, 'captions', count(*) from caption group by dataset_id
    union all
    select dataset_id, 6, 'expressions', count(*) from expression group by dataset_id
    union all
    select dataset_id, 7, 'pairs', count(*) from pair group by dataset_id
    union all
    select dataset_id, 8, 'questions', count(*) from question group by dataset_id
    union all
    select dataset_id, 9, 'clips', count(distinct clip) from frame group by dataset_id
),

noted as (
    select
        dataset_id,
        if(lost, 'left out', 'mended') as outcome,
        kind,
        sum(count)::bigint as count,
        count(*) filter (image <> '') as images,
        arg_min(place, (position, place)) as first_place,
    from load_note
    group by dataset_id, lost, kind
),

report as (
    select dataset_id, number, 'read' as outcome, kind, count, null as images, null as first_place
    from held
    where count > 0
    union all
    select dataset_id, if(outcome = 'left out', 10, 11), outcome, kind, count, images, first_place
    from noted
)

select dataset_id as dataset, outcome, kind, count, images, first_place
from report
join wanted using (dataset_id)
order by dataset, number, count desc, kind
