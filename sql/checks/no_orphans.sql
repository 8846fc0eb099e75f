-- no_orphans: one row per table and reference that points to nothing
with orphans as (
    select 'run' as "table", 'model_id' as reference, model_id as missing
    from run anti join model using (model_id)
    union all
    select 'run', 'dataset_id', dataset_id from run anti join dataset using (dataset_id)
    union all
    select 'token_grid', 'run_id', run_id from token_grid anti join run using (run_id)
    union all
    select 'token_grid', 'image_id', image_id::varchar from token_grid anti join image using (image_id)
    union all
    select 'dataset_image', 'dataset_id', dataset_id from dataset_image anti join dataset using (dataset_id)
    union all
    select 'dataset_image', 'image_id', image_id::varchar from dataset_image anti join image using (image_id)
    union all
    select 'object', 'image_id', dataset_id || ' ' || image_id
    from object anti join dataset_image using (dataset_id, image_id)
    union all
    select 'keypoint', 'object_id', dataset_id || ' ' || object_id
    from keypoint anti join object using (dataset_id, object_id, image_id)
    union all
    select 'caption', 'image_id', dataset_id || ' ' || image_id
    from caption anti join dataset_image using (dataset_id, image_id)
    union all
    select 'expression', 'object_id', dataset_id || ' ' || object_id
    from expression anti join object using (dataset_id, object_id, image_id)
    union all
    select 'void', 'image_id', dataset_id || ' ' || image_id
    from void anti join dataset_image using (dataset_id, image_id)
    union all
    select 'frame', 'image_id', dataset_id || ' ' || image_id
    from frame anti join dataset_image using (dataset_id, image_id)
    union all
    select 'category', 'dataset_id', dataset_id from category anti join dataset using (dataset_id)
    union all
    select 'load_note', 'dataset_id', dataset_id from load_note anti join dataset using (dataset_id)
    union all
    select 'question', 'dataset_id', dataset_id from question anti join dataset using (dataset_id)
    union all
    select 'question', 'question_id', dataset_id || ' ' || question_id
    from question anti join question_image using (dataset_id, question_id)
    union all
    select 'question_image', 'question_id', dataset_id || ' ' || question_id
    from question_image anti join question using (dataset_id, question_id)
    union all
    select 'question_image', 'image_id', dataset_id || ' ' || image_id
    from question_image anti join dataset_image using (dataset_id, image_id)
    union all
    select 'pair_keypoint', 'pair_id', dataset_id || ' ' || pair_id
    from pair_keypoint anti join pair using (dataset_id, pair_id)
    union all
    select 'pair', 'dataset_id', dataset_id from pair anti join dataset using (dataset_id)
    union all
    select 'pair', 'source_image_id', source_image_id::varchar
    from pair anti join image on image.image_id = source_image_id
    union all
    select 'pair', 'target_image_id', target_image_id::varchar
    from pair anti join image on image.image_id = target_image_id
    union all
    select 'quarantine', 'run_id', run_id from quarantine anti join run using (run_id)
    union all
    select 'key_stat', 'run_id', run_id from key_stat anti join run using (run_id)
    union all
    select 'match', 'run_id', run_id from match anti join run using (run_id)
    union all
    select 'match', 'name', dataset_id || ' ' || pair_id || ' ' || name
    from match
    join run using (run_id)
    anti join pair_keypoint using (dataset_id, pair_id, name)
    union all
    select 'segment', 'image_id', run_id || ' ' || image_id
    from segment anti join token_grid using (run_id, image_id)
    union all
    select 'mask', 'image_id', run_id || ' ' || image_id
    from mask anti join token_grid using (run_id, image_id)
    union all
    select 'answer', 'run_id', run_id from answer anti join run using (run_id)
    union all
    select 'answer', 'question_id', dataset_id || ' ' || question_id
    from answer
    join run using (run_id)
    anti join question using (dataset_id, question_id)
    union all
    select 'answer', 'condition', condition from answer anti join condition using (condition)
    union all
    select 'score', 'run_id', run_id from score anti join run using (run_id)
)

select "table", reference, count(*) as rows, min(missing) as first_missing
from orphans
group by "table", reference
order by "table", reference
