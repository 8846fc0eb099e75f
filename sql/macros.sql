-- Macros for people: `from patches('my-run', 7)`. They are made anew whenever the catalog is published.
-- A parameter must not have the name of a column: hence at_layer, at_head, at_patch.

-- run_vectors(run, kind): the rows of one Lance table of a run, kind being 'patch_kv', 'pooled_kv', 'patch_input' or
-- 'patch_encoder'. The views of these names open every run of the store before a filter on run_id leaves one (about
-- 0.2 ms a run); this opens the one. Its columns are those that the run stores. (lance_path knows the folders; it is
-- made anew with the views.)
create or replace macro run_vectors(run, kind) as table
    select run as run_id, * from __lance_scan(lance_path(run, kind));
comment on macro lance_path is 'lance_path(run, kind): the folder to scan for one of a run''s Lance tables as of the version in table run';
comment on macro table run_vectors is 'run_vectors(run, kind): the rows of one of a run''s Lance tables, no other run opened';

-- patches(run, image): one row per patch of an image of a run, in the order of patch_kv.patch: its grid (0 the
-- overview, 1 the AnyRes tiles), row and col in that grid, the encoder tile that its centre comes from, its pixel
-- box clipped to the image, and the place of its token (of a pooled block: of its first token) in the sequence.
-- The image lies in the middle of its tiles, which hold it whole: the longer of its two spans fills them.
create or replace macro patches(run, image) as table
    with cells as (
        select
            token_grid.*,
            runs.pool,
            images.width,
            images.height,
            unnest(range(token_grid.rows * token_grid.columns)) as cell,
        from token_grid
        join run as runs using (run_id)
        join image as images using (image_id)
        where token_grid.run_id = run and token_grid.image_id = image
    ),

    placed as (
        select
            cells.*,
            (cells.cell // cells.columns)::integer as row,
            (cells.cell % cells.columns)::integer as col,
            (cells.x1 - cells.x0) / cells.columns as cell_width,
            (cells.y1 - cells.y0) / cells.rows as cell_height,
            greatest(cells.width / cells.tile_columns, cells.height / cells.tile_rows) as tile_side,
        from cells
    ),

    tiled as (
        select
            *,
            (x0 + (col + 0.5) * cell_width - width / 2) / tile_side + tile_columns / 2 as tiles_across,
            (y0 + (row + 0.5) * cell_height - height / 2) / tile_side + tile_rows / 2 as tiles_down,
        from placed
    )

    select
        (placed.first_patch + placed.cell)::integer as patch,
        placed.grid,
        placed.row,
        placed.col,
        least(greatest(floor(placed.tiles_down), 0), placed.tile_rows - 1)::integer as tile_row,
        least(greatest(floor(placed.tiles_across), 0), placed.tile_columns - 1)::integer as tile_col,
        least(greatest(placed.x0 + placed.col * placed.cell_width, 0), placed.width) as x0,
        least(greatest(placed.y0 + placed.row * placed.cell_height, 0), placed.height) as y0,
        least(greatest(placed.x0 + (placed.col + 1) * placed.cell_width, 0), placed.width) as x1,
        least(greatest(placed.y0 + (placed.row + 1) * placed.cell_height, 0), placed.height) as y1,
        (placed.first_position + placed.pool * (placed.row * placed.row_stride + placed.col))::integer as position,
    from tiled as placed
    order by patch;
comment on macro table patches is 'patches(run, image): one row per patch with its grid, row, col, tile, pixel box and token position';

-- patch_vector(run, image, layer, head, patch): one row, the key and the value of one patch.
create or replace macro patch_vector(run, image, at_layer, at_head, at_patch) as table
    select patch_kv.key, patch_kv.value
    from patch_kv
    where
        patch_kv.run_id = run
        and patch_kv.image_id = image
        and patch_kv.layer = at_layer
        and patch_kv.head = at_head
        and patch_kv.patch = at_patch;
comment on macro table patch_vector is 'patch_vector(run, image, layer, head, patch): one row, the key and the value of a patch';

-- patch_neighbours(run, image, layer, head, patch, site, k): one row per neighbour, nearest first: the k patches of
-- all other images with the highest cosine similarity at the same layer and head. Exact: every patch is compared.
-- site is 'value' or 'key'.
create or replace macro patch_neighbours(run, image, at_layer, at_head, at_patch, site, k) as table
    with wanted as (
        select case when site = 'key' then patch_kv.key when site = 'value' then patch_kv.value end as vector
        from patch_kv
        where
            patch_kv.run_id = run
            and patch_kv.image_id = image
            and patch_kv.layer = at_layer
            and patch_kv.head = at_head
            and patch_kv.patch = at_patch
    ),

    others as (
        select
            patch_kv.image_id,
            patch_kv.patch,
            case when site = 'key' then patch_kv.key when site = 'value' then patch_kv.value end as vector,
        from patch_kv
        where
            patch_kv.run_id = run
            and patch_kv.image_id <> image
            and patch_kv.layer = at_layer
            and patch_kv.head = at_head
    )

    select others.image_id, others.patch, list_cosine_similarity(others.vector, wanted.vector) as similarity
    from others
    cross join wanted
    order by similarity desc, others.image_id, others.patch
    limit k;
comment on macro table patch_neighbours is 'patch_neighbours(run, image, layer, head, patch, site, k): the k nearest patches of other images by cosine, exact';

-- layer_pooled(run, layer): one row per image and KV head: the means of the patches' keys and values at a layer.
create or replace macro layer_pooled(run, at_layer) as table
    select
        pooled_kv.image_id,
        pooled_kv.head,
        pooled_kv.key,
        pooled_kv.value,
        pooled_kv.key_norm,
        pooled_kv.value_norm,
    from pooled_kv
    where pooled_kv.run_id = run and pooled_kv.layer = at_layer
    order by pooled_kv.image_id, pooled_kv.head;
comment on macro table layer_pooled is 'layer_pooled(run, layer): one row per image and KV head, the means over patches of key and value';

-- image_value(run, image, layer, head): one row per patch of an image value (and key): patch, its grid, row and
-- col, and the vectors.
create or replace macro image_value(run, image, at_layer, at_head) as table
    with vectors as (
        select patch_kv.patch, patch_kv.key, patch_kv.value
        from patch_kv
        where
            patch_kv.run_id = run
            and patch_kv.image_id = image
            and patch_kv.layer = at_layer
            and patch_kv.head = at_head
    )

    select places.patch, places.grid, places.row, places.col, vectors.key, vectors.value
    from patches(run, image) as places
    join vectors on vectors.patch = places.patch
    order by places.patch;
comment on macro table image_value is 'image_value(run, image, layer, head): one row per patch with its grid, row, col, key and value';

-- key_share(run): one row per row of key_stat, of one run or of all (null), with share: what of E|k|^2 varies over
-- images. It is null of one image, which cannot tell, and 0 where all keys are zero.
create or replace macro key_share(of_run) as table
    select
        *,
        case
            when variance is null then null
            when mean_square > 0 then greatest(variance, 0) / mean_square
            else 0
        end as share,
    from key_stat
    where of_run is null or run_id = of_run;
comment on macro table key_share is 'key_share(run): key_stat of one run or of all (null), with the share of E|k|^2 that varies over images';
