-- The catalog: every table with its grain, every column with its meaning. Vectors live in Lance, beside it.
-- Pixels are those of the upright image (EXIF orientation applied), x right, y down, far edges exclusive.

create table if not exists store (
    version integer primary key,
    created_at timestamp with time zone not null default now(),
    created_by varchar not null,
);
comment on table store is 'one row: the store''s own format';
comment on column store.version is 'format of the store; a kvstore that knows only lower numbers refuses it';
comment on column store.created_at is 'when the store was made';
comment on column store.created_by is 'the kvstore version that made it';

create table if not exists model (
    model_id varchar primary key,
    name varchar not null,
    source varchar not null,
    revision varchar not null unique,
    family varchar not null,
    architecture varchar not null,
    layers smallint not null,
    query_heads smallint not null,
    kv_heads smallint not null,
    key_dim smallint not null,
    value_dim smallint not null,
    hidden_dim integer not null,
    encoder_layers smallint not null,
    encoder_dim integer not null,
    parameters bigint not null,
    processor json not null,
);
comment on table model is 'one row per model revision';
comment on column model.model_id is 'name of the model in this store';
comment on column model.name is 'what the user called it: alias, hub id or folder name';
comment on column model.source is 'hub id or folder it was loaded from';
comment on column model.revision is 'hub commit, or sha256 over the folder''s files; + sha256 over its Python files where they were trusted';
comment on column model.family is 'recipe that reads it: ingest/models/<family>.py';
comment on column model.architecture is 'class of transformers';
comment on column model.layers is 'decoder layers of the language model';
comment on column model.query_heads is 'query heads of a layer';
comment on column model.kv_heads is 'key-value heads of a layer; grouped-query attention shares each among query heads';
comment on column model.key_dim is 'width of one head''s key';
comment on column model.value_dim is 'width of one head''s value';
comment on column model.hidden_dim is 'width of the language model, and of the input visual representation';
comment on column model.encoder_layers is 'layers of the vision encoder';
comment on column model.encoder_dim is 'width of the vision encoder''s hidden states';
comment on column model.parameters is 'number of weights';
comment on column model.processor is 'class and settings of the image processor';

create table if not exists dataset (
    dataset_id varchar primary key,
    name varchar not null,
    split varchar not null,
    fingerprint varchar not null unique,
    root varchar,
    annotations varchar,
    images integer not null,
    follow_links boolean default false,
    added_at timestamp with time zone not null default now(),
);
comment on table dataset is 'one row per data set and split, as identified by its file names and annotation files';
comment on column dataset.dataset_id is 'name of the data set in this store, <name>/<split>';
comment on column dataset.name is 'recipe that reads it: ingest/datasets/<name>.py';
comment on column dataset.split is 'split, or an empty text where it has none';
comment on column dataset.fingerprint is 'sha256 over image names in order, annotation files'' bytes, and the recipe''s own identity';
comment on column dataset.root is 'folder it was read from; null where images are drawn';
comment on column dataset.annotations is 'file in COCO''s format that says what is in the images (--annotations); null where a recipe found it under root';
comment on column dataset.images is 'images that the data set names, ingested or not';
comment on column dataset.follow_links is 'whether links in its folder may lead out of it (--follow-links)';
comment on column dataset.added_at is 'when it first came into this store';

create table if not exists image (
    image_id integer primary key,
    sha256 varchar not null unique,
    width integer not null,
    height integer not null,
    format varchar not null,
    orientation tinyint not null,
    bytes bigint not null,
);
comment on table image is 'one row per distinct image content in the store';
comment on column image.image_id is 'number of the image in this store';
comment on column image.sha256 is 'sha256 of the file''s bytes: an image is its content';
comment on column image.width is 'pixels, upright';
comment on column image.height is 'pixels, upright';
comment on column image.format is 'file format as decoded: JPEG, PNG, BMP, ...';
comment on column image.orientation is 'EXIF orientation, 1 to 8; the image and its annotations are turned upright by it';
comment on column image.bytes is 'size of the file';

create table if not exists dataset_image (
    dataset_id varchar not null,
    name varchar not null,
    image_id integer not null,
    position integer not null,
    primary key (dataset_id, name, image_id),
);
comment on table dataset_image is 'one row per data set, file name and content';
comment on column dataset_image.dataset_id is 'data set';
comment on column dataset_image.name is 'file name relative to the data set''s root, with forward slashes';
comment on column dataset_image.image_id is 'content met under this name';
comment on column dataset_image.position is 'place in the data set''s order, from 0';

create table if not exists object (
    dataset_id varchar not null,
    object_id bigint not null,
    image_id integer not null,
    category varchar not null,
    x0 double not null,
    y0 double not null,
    x1 double not null,
    y1 double not null,
    area double not null,
    crowd boolean not null,
    mask json,
    primary key (dataset_id, object_id, image_id),
);
comment on table object is 'one row per annotated object of a data set''s image';
comment on column object.dataset_id is 'data set';
comment on column object.object_id is 'the data set''s own number of the object';
comment on column object.image_id is 'image it is in';
comment on column object.category is 'name of its category';
comment on column object.x0 is 'left edge of its box, pixels';
comment on column object.y0 is 'top edge of its box, pixels';
comment on column object.x1 is 'right edge of its box, pixels';
comment on column object.y1 is 'bottom edge of its box, pixels';
comment on column object.area is 'the data set''s own figure, pixels; for COCO crowds it can differ from the mask''s';
comment on column object.crowd is 'a crowd: many instances in one mask';
comment on column object.mask is 'COCO compressed RLE {"size": [height, width], "counts": text}; null without a mask';

create table if not exists keypoint (
    dataset_id varchar not null,
    object_id bigint not null,
    image_id integer not null,
    name varchar not null,
    x double not null,
    y double not null,
    visible tinyint not null,
    primary key (dataset_id, object_id, image_id, name),
);
comment on table keypoint is 'one row per named keypoint of an object';
comment on column keypoint.dataset_id is 'data set';
comment on column keypoint.object_id is 'object it belongs to';
comment on column keypoint.image_id is 'image it is in';
comment on column keypoint.name is 'what it marks; the same name means the same part in every instance';
comment on column keypoint.x is 'pixels from the left';
comment on column keypoint.y is 'pixels from the top';
comment on column keypoint.visible is '0 not labelled, 1 labelled but hidden, 2 seen (as COCO)';

create table if not exists caption (
    dataset_id varchar not null,
    image_id integer not null,
    number smallint not null,
    text varchar not null,
    primary key (dataset_id, image_id, number),
);
comment on table caption is 'one row per caption of a data set''s image';
comment on column caption.dataset_id is 'data set';
comment on column caption.image_id is 'image it describes';
comment on column caption.number is 'which of the image''s captions, from 0';
comment on column caption.text is 'the caption, verbatim';

create table if not exists category (
    dataset_id varchar not null,
    number integer not null,
    name varchar not null,
    primary key (dataset_id, number),
);
comment on table category is 'one row per category of a data set whose recipe numbers them';
comment on column category.dataset_id is 'data set';
comment on column category.number is 'the data set''s own number';
comment on column category.name is 'its name, as in object.category';

create table if not exists pair (
    dataset_id varchar not null,
    pair_id integer not null,
    category varchar not null,
    source_image_id integer not null,
    target_image_id integer not null,
    source_x0 double not null,
    source_y0 double not null,
    source_x1 double not null,
    source_y1 double not null,
    target_x0 double not null,
    target_y0 double not null,
    target_x1 double not null,
    target_y1 double not null,
    primary key (dataset_id, pair_id),
);
comment on table pair is 'one row per pair of images with one category of object, for semantic correspondence';
comment on column pair.dataset_id is 'data set';
comment on column pair.pair_id is 'number of the pair in the data set';
comment on column pair.category is 'category of the object in both images';
comment on column pair.source_image_id is 'image whose keypoints are looked up';
comment on column pair.target_image_id is 'image in which they are sought';
comment on column pair.source_x0 is 'left edge of the source object''s box, pixels';
comment on column pair.source_y0 is 'top edge of the source object''s box, pixels';
comment on column pair.source_x1 is 'right edge of the source object''s box, pixels';
comment on column pair.source_y1 is 'bottom edge of the source object''s box, pixels';
comment on column pair.target_x0 is 'left edge of the target object''s box, pixels';
comment on column pair.target_y0 is 'top edge of the target object''s box, pixels';
comment on column pair.target_x1 is 'right edge of the target object''s box, pixels';
comment on column pair.target_y1 is 'bottom edge of the target object''s box; its longer side scales PCK''s threshold';

create table if not exists pair_keypoint (
    dataset_id varchar not null,
    pair_id integer not null,
    name varchar not null,
    source_x double not null,
    source_y double not null,
    target_x double not null,
    target_y double not null,
    primary key (dataset_id, pair_id, name),
);
comment on table pair_keypoint is 'one row per keypoint seen in both images of a pair';
comment on column pair_keypoint.dataset_id is 'data set';
comment on column pair_keypoint.pair_id is 'pair';
comment on column pair_keypoint.name is 'what the keypoint marks';
comment on column pair_keypoint.source_x is 'pixels from the left in the source image';
comment on column pair_keypoint.source_y is 'pixels from the top in the source image';
comment on column pair_keypoint.target_x is 'pixels from the left in the target image: the truth';
comment on column pair_keypoint.target_y is 'pixels from the top in the target image: the truth';

create table if not exists expression (
    dataset_id varchar not null,
    image_id integer not null,
    object_id bigint not null,
    number smallint not null,
    text varchar not null,
    primary key (dataset_id, image_id, object_id, number),
);
comment on table expression is 'one row per referring expression: words that single out one object of its image';
comment on column expression.dataset_id is 'data set';
comment on column expression.image_id is 'image it speaks of';
comment on column expression.object_id is 'the one object that it fits';
comment on column expression.number is 'which of the object''s expressions, from 0';
comment on column expression.text is 'the expression, verbatim';

create table if not exists void (
    dataset_id varchar not null,
    image_id integer not null,
    mask json not null,
    primary key (dataset_id, image_id),
);
comment on table void is 'one row per image of a data set with pixels that no evaluation counts';
comment on column void.dataset_id is 'data set';
comment on column void.image_id is 'image';
comment on column void.mask is 'those pixels, as object.mask';

create table if not exists frame (
    dataset_id varchar not null,
    clip varchar not null,
    number integer not null,
    image_id integer not null,
    primary key (dataset_id, clip, number),
);
comment on table frame is 'one row per frame of a video; an object keeps its object_id from frame to frame';
comment on column frame.dataset_id is 'data set';
comment on column frame.clip is 'name of the video';
comment on column frame.number is 'place of the frame in its video, from 0';
comment on column frame.image_id is 'the frame''s image';

create table if not exists question (
    dataset_id varchar not null,
    question_id integer not null,
    kind varchar not null,
    text varchar not null,
    answer varchar not null,
    options varchar[] not null,
    primary key (dataset_id, question_id),
);
comment on table question is 'one row per question about one or more images';
comment on column question.dataset_id is 'data set';
comment on column question.question_id is 'number of the question in the data set';
comment on column question.kind is 'what it asks for: existence, color, counting, ...';
comment on column question.text is 'the question, verbatim';
comment on column question.answer is 'the right answer';
comment on column question.options is 'all answers that it could have; empty for a free answer';

create table if not exists question_image (
    dataset_id varchar not null,
    question_id integer not null,
    number smallint not null,
    image_id integer not null,
    primary key (dataset_id, question_id, number),
);
comment on table question_image is 'one row per question and image that is shown with it';
comment on column question_image.dataset_id is 'data set';
comment on column question_image.question_id is 'question';
comment on column question_image.number is 'place of the image in the prompt, from 0';
comment on column question_image.image_id is 'image';

create table if not exists load_note (
    dataset_id varchar not null,
    image varchar not null,
    position integer not null,
    kind varchar not null,
    lost boolean not null,
    count bigint not null,
    place varchar not null,
    primary key (dataset_id, image, kind, lost),
);
comment on table load_note is 'one row per data set, image (or the files as a whole) and kind: what its files hold that was left out, or mended; totals with `kvstore sql load_notes`';
comment on column load_note.dataset_id is 'data set';
comment on column load_note.image is 'file name of the image whose annotations these are; empty: of the data set''s files as a whole';
comment on column load_note.position is 'the image''s place in the data set''s order, from 0; -1: of the files as a whole';
comment on column load_note.kind is 'what it is, in the plural';
comment on column load_note.lost is 'left out of the store; else read in the one way in which it can be meant';
comment on column load_note.count is 'how many';
comment on column load_note.place is 'where the first is: file and entry';

create table if not exists run (
    run_id varchar primary key,
    fingerprint varchar not null unique,
    identity json not null,
    model_id varchar not null,
    dataset_id varchar not null,
    prefix varchar not null,
    view varchar not null,
    sites varchar[] not null,
    layers smallint[] not null,
    encoder_layers smallint[] not null,
    pool smallint not null,
    dtype varchar not null,
    device varchar not null,
    code_version varchar not null,
    state varchar not null,
    versions map(varchar, bigint) not null,
    requested integer not null,
    started_at timestamp with time zone not null default now(),
    finished_at timestamp with time zone,
    seconds double not null default 0,
    images integer not null default 0,
    tokens bigint not null default 0,
    rows bigint not null default 0,
    bytes bigint not null default 0,
    images_per_s double,
    tokens_per_s double,
    mb_per_s double,
    limiting_stage varchar,
);
comment on table run is 'one row per model x data set x prefix x view x sites x layers x pooling x dtype';
comment on column run.run_id is 'name of the run; its Lance tables are <run_id>.patch_kv and so on';
comment on column run.fingerprint is 'sha256 of identity: the same inputs continue the same run';
comment on column run.identity is 'all inputs of the run, in full';
comment on column run.model_id is 'model';
comment on column run.dataset_id is 'data set';
comment on column run.prefix is 'text placed right before the image, verbatim';
comment on column run.view is 'base: the overview only; all: with AnyRes tiles';
comment on column run.sites is 'what is stored: value, key, input, encoder';
comment on column run.layers is 'language model layers stored';
comment on column run.encoder_layers is 'vision encoder layers stored (hidden states; 0 is the embedding''s output)';
comment on column run.pool is 'patches are averaged over pool x pool blocks before they are stored; 1 is none';
comment on column run.dtype is 'dtype of the forward pass; vectors are stored as float16';
comment on column run.device is 'device of the forward pass';
comment on column run.code_version is 'kvstore version that made it';
comment on column run.state is 'running, done, or interrupted (resume with the same command)';
comment on column run.versions is 'committed version of each of the run''s Lance tables';
comment on column run.requested is 'images asked for so far: the whole data set, or --limit';
comment on column run.started_at is 'when it was first started';
comment on column run.finished_at is 'when it was last finished';
comment on column run.seconds is 'time spent in ingest, all sessions together';
comment on column run.images is 'images stored';
comment on column run.tokens is 'tokens prefilled, padding left out';
comment on column run.rows is 'rows of patch_kv, patch_input and patch_encoder together';
comment on column run.bytes is 'bytes of the vectors stored';
comment on column run.images_per_s is 'images per second of the last session';
comment on column run.tokens_per_s is 'tokens prefilled per second of the last session';
comment on column run.mb_per_s is 'megabytes (10^6) of vectors stored per second of the last session';
comment on column run.limiting_stage is 'stage that the others waited for: decode, prefill or write';

create table if not exists token_grid (
    run_id varchar not null,
    image_id integer not null,
    grid tinyint not null,
    rows integer not null,
    columns integer not null,
    x0 double not null,
    y0 double not null,
    x1 double not null,
    y1 double not null,
    first_patch integer not null,
    first_position integer not null,
    row_stride integer not null,
    tile_rows tinyint not null,
    tile_columns tinyint not null,
    primary key (run_id, image_id, grid),
);
comment on table token_grid is 'one row per run, image and grid of patches; a row here means that the image is stored whole';
comment on column token_grid.run_id is 'run';
comment on column token_grid.image_id is 'image';
comment on column token_grid.grid is '0 the overview (or the only grid), 1 the AnyRes tiles put together';
comment on column token_grid.rows is 'rows of patches, after pooling';
comment on column token_grid.columns is 'columns of patches, after pooling';
comment on column token_grid.x0 is 'left edge of the pixel box that the grid covers';
comment on column token_grid.y0 is 'top edge of that box';
comment on column token_grid.x1 is 'right edge of that box; it may reach past the image by less than a cell';
comment on column token_grid.y1 is 'bottom edge of that box';
comment on column token_grid.first_patch is 'number of the grid''s first patch; patches go row by row';
comment on column token_grid.first_position is 'place in the token sequence of the grid''s first token';
comment on column token_grid.row_stride is 'tokens from one row to the next, before pooling: columns, plus 1 with newline tokens';
comment on column token_grid.tile_rows is 'rows of encoder tiles that the grid is composed of';
comment on column token_grid.tile_columns is 'columns of encoder tiles that the grid is composed of';

create table if not exists quarantine (
    run_id varchar not null,
    name varchar not null,
    position integer not null,
    reason varchar not null,
    detail varchar not null,
    seen_at timestamp with time zone not null default now(),
    primary key (run_id, name),
);
comment on table quarantine is 'one row per run and image that could not be stored; tried again on the next ingest';
comment on column quarantine.run_id is 'run';
comment on column quarantine.name is 'file name in the data set';
comment on column quarantine.position is 'place in the data set''s order, from 0';
comment on column quarantine.reason is 'one word for grouping: truncated, empty, not-an-image, missing, non-finite, ...';
comment on column quarantine.detail is 'what happened, in full';
comment on column quarantine.seen_at is 'when it was last met';

create table if not exists key_stat (
    run_id varchar not null,
    rows integer not null,
    columns integer not null,
    grid tinyint not null,
    first_position integer not null,
    row_stride integer not null,
    layer smallint not null,
    head smallint not null,
    patch integer not null,
    n integer not null,
    mean_square double not null,
    square_mean double not null,
    variance double,
    primary key (run_id, rows, columns, grid, first_position, row_stride, layer, head, patch),
);
comment on table key_stat is 'one row per run, grid with its positions, layer, head and patch: moments of the key over images';
comment on column key_stat.run_id is 'run';
comment on column key_stat.rows is 'rows of the grid; keys carry the rotary position, so only one grid''s images are comparable';
comment on column key_stat.columns is 'columns of the grid';
comment on column key_stat.grid is 'which grid of the image, as in token_grid';
comment on column key_stat.first_position is 'position of the grid''s first patch in the sequence, as in token_grid';
comment on column key_stat.row_stride is 'tokens from one row of the grid to the next, as in token_grid';
comment on column key_stat.layer is 'language model layer';
comment on column key_stat.head is 'KV head';
comment on column key_stat.patch is 'patch position in the grid';
comment on column key_stat.n is 'images: all of the run that have the grid at these positions, whatever else they have';
comment on column key_stat.mean_square is 'E|k|^2 over images';
comment on column key_stat.square_mean is '|E k|^2 over images';
comment on column key_stat.variance is 'E|k|^2 - |E k|^2; its share is variance / mean_square; null of one image';

create table if not exists match (
    run_id varchar not null,
    probe varchar not null,
    pair_id integer not null,
    name varchar not null,
    site varchar not null,
    layer smallint not null,
    head smallint,
    patch integer not null,
    x double not null,
    y double not null,
    similarity float not null,
);
comment on table match is 'one row per run, probe, pair keypoint, site, layer and head: the place found nearest';
comment on column match.run_id is 'run';
comment on column match.probe is 'correspondence: the best patch; correspondence-bilinear: the best pixel of maps upsampled to the image';
comment on column match.pair_id is 'pair of the run''s data set';
comment on column match.name is 'keypoint of the pair';
comment on column match.site is 'value, key, input or encoder; position: a floor that looks at no vector';
comment on column match.layer is 'layer; 0 for input and position';
comment on column match.head is 'KV head; null: all heads of the layer concatenated (and for input, encoder and position)';
comment on column match.patch is 'patch of the target image whose vector is nearest by cosine, or that holds the nearest pixel; for position the one at the same relative place of the image';
comment on column match.x is 'pixels from the left: centre of that patch; left edge of the pixel found by correspondence-bilinear';
comment on column match.y is 'pixels from the top: centre of that patch; upper edge of the pixel found by correspondence-bilinear';
comment on column match.similarity is 'cosine similarity, -1 to 1; 0 for position, which compares nothing';

create table if not exists segment (
    run_id varchar not null,
    probe varchar not null,
    image_id integer not null,
    site varchar not null,
    layer smallint not null,
    head smallint,
    predicted bit not null,
    truth bit not null,
);
comment on table segment is 'one row per run, probe, image, site, layer and head: the patches taken for the object';
comment on column segment.run_id is 'run';
comment on column segment.probe is 'probe that made it: foreground';
comment on column segment.image_id is 'image';
comment on column segment.site is 'value, key, input or encoder; position: a floor that sees only where a patch is';
comment on column segment.layer is 'layer; 0 for input and position';
comment on column segment.head is 'KV head; null: all heads of the layer concatenated (and for input, encoder and position)';
comment on column segment.predicted is 'a bit per patch of grid 0, row by row: 1 for foreground; as text with ::varchar';
comment on column segment.truth is 'the same of the annotation: 1 where masks cover at least half of the patch''s pixel box';

create table if not exists mask (
    run_id varchar not null,
    probe varchar not null,
    image_id integer not null,
    label varchar not null,
    object_id bigint,
    number integer not null,
    site varchar not null,
    layer smallint not null,
    head smallint,
    mask json not null,
    x0 double,
    y0 double,
    x1 double,
    y1 double,
    predicted bigint not null,
    truth bigint not null,
    shared bigint not null,
    valid bigint not null,
    contour integer,
    true_contour integer,
    contour_hits integer,
    true_contour_hits integer,
);
comment on table mask is 'one row per run, probe, image, label, object, number, site, layer and head: the pixels taken for it, and what of them is true';
comment on column mask.run_id is 'run';
comment on column mask.probe is 'probe that made it: tracking, tracking-void-out, fewshot-segmentation, ...';
comment on column mask.image_id is 'image';
comment on column mask.label is 'what the pixels are taken for: category, group, expression; other: none of the categories';
comment on column mask.object_id is 'the one object meant, where it is one (tracking, referring); else null';
comment on column mask.number is 'few-shot: episode; co-segmentation: place of the group among the categories; referring: expression.number of the object; tracking: frame; else 0';
comment on column mask.site is 'value, key, input or encoder; position: a floor that sees only where a patch is';
comment on column mask.layer is 'layer; 0 for input and position';
comment on column mask.head is 'KV head; null: all heads of the layer concatenated (and for input, encoder and position)';
comment on column mask.mask is 'the prediction: COCO compressed RLE of the upright image';
comment on column mask.x0 is 'left edge of the prediction''s extent, pixels; null where it is empty';
comment on column mask.y0 is 'top edge of the prediction''s extent';
comment on column mask.x1 is 'right edge of the prediction''s extent, exclusive';
comment on column mask.y1 is 'bottom edge of the prediction''s extent, exclusive';
comment on column mask.predicted is 'pixels predicted; these counts leave void pixels out, but those of tracking take them for background';
comment on column mask.truth is 'pixels of the annotation';
comment on column mask.shared is 'pixels that are both';
comment on column mask.valid is 'pixels of the image that count: all but void (of tracking all)';
comment on column mask.contour is 'tracking: pixels of the prediction''s contour';
comment on column mask.true_contour is 'tracking: pixels of the annotation''s contour';
comment on column mask.contour_hits is 'tracking: contour pixels within reach of the true contour';
comment on column mask.true_contour_hits is 'tracking: true contour pixels within reach of the contour';

create table if not exists condition (
    condition varchar primary key,
    about varchar not null,
    sql varchar,
);
comment on table condition is 'one row per condition under which a model answers';
comment on column condition.condition is 'name of the condition';
comment on column condition.about is 'what is done to the model';
comment on column condition.sql is 'the query that names the blocked keys; null: nothing is blocked';

create table if not exists answer (
    run_id varchar not null,
    question_id integer not null,
    condition varchar not null,
    method varchar not null,
    text varchar not null,
    option_likelihoods double[],
    primary key (run_id, question_id, condition, method),
);
comment on table answer is 'one row per question, run, condition and method: what the model answers';
comment on column answer.run_id is 'run whose model and prefix were used';
comment on column answer.question_id is 'question of the run''s data set';
comment on column answer.condition is 'condition; none: the model as it is';
comment on column answer.method is 'greedy: generated text; likelihood: the most likely of the question''s options';
comment on column answer.text is 'the answer, verbatim';
comment on column answer.option_likelihoods is 'log-likelihood of each option, in the question''s order; null for greedy';

create table if not exists score (
    run_id varchar not null,
    probe varchar not null,
    metric varchar not null,
    site varchar not null,
    layer smallint not null,
    head smallint,
    value double,
    low double,
    high double,
    n integer not null,
    units integer,
);
comment on table score is 'one row per run, probe, metric, site, layer and head: a figure made by sql/analyses';
comment on column score.run_id is 'run';
comment on column score.probe is 'probe: a name of `kvstore ls probes`';
comment on column score.metric is 'figure: pck@0.10, iou, ...';
comment on column score.site is 'value, key, input or encoder; position and chance: floors, which look at no vector';
comment on column score.layer is 'layer; 0 for input and the floors';
comment on column score.head is 'KV head; null: all heads of the layer concatenated (and for input, encoder and the floors)';
comment on column score.value is 'the figure';
comment on column score.low is 'lower end of its bootstrap 95 % interval over units; null with one unit';
comment on column score.high is 'upper end of its bootstrap 95 % interval over units; null with one unit';
comment on column score.n is 'items: what the figure counts, see macro figure_items';
comment on column score.units is 'independent units that the items share, which the bootstrap draws: images (of pairs both), clips';
