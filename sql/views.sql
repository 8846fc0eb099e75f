-- What the views over the Lance tables mean. The views themselves are made from table run, one branch a run.

comment on view patch_kv is 'one row per run, image, layer, KV head and patch: a key and a value vector; see how_to_read_vectors';
comment on column patch_kv.run_id is 'run; a filter on it opens that run''s table only';
comment on column patch_kv.image_id is 'image';
comment on column patch_kv.layer is 'language model layer, from 0';
comment on column patch_kv.head is 'KV head, from 0';
comment on column patch_kv.patch is 'patch, through the image''s grids row by row; see macro patches()';
comment on column patch_kv.key is 'key as the cache holds it, after the rotary embedding; null when not stored';
comment on column patch_kv.value is 'value; null when not stored';

comment on view pooled_kv is 'one row per run, image, layer and KV head: means over the image''s patches; see how_to_read_vectors';
comment on column pooled_kv.run_id is 'run; a filter on it opens that run''s table only';
comment on column pooled_kv.image_id is 'image';
comment on column pooled_kv.layer is 'language model layer, from 0';
comment on column pooled_kv.head is 'KV head, from 0';
comment on column pooled_kv.key is 'mean of the keys over the patches; null when not stored';
comment on column pooled_kv.value is 'mean of the values over the patches; null when not stored';
comment on column pooled_kv.key_norm is 'euclidean norm of that mean key';
comment on column pooled_kv.value_norm is 'euclidean norm of that mean value';

comment on view patch_input is 'one row per run, image and patch: the input visual representation (the projector''s output); see how_to_read_vectors';
comment on column patch_input.run_id is 'run; a filter on it opens that run''s table only';
comment on column patch_input.image_id is 'image';
comment on column patch_input.patch is 'patch, as in patch_kv';
comment on column patch_input.feature is 'what enters the language model at that patch';

comment on view patch_encoder is 'one row per run, image, encoder layer and patch: hidden states of the vision encoder; see how_to_read_vectors';
comment on column patch_encoder.run_id is 'run; a filter on it opens that run''s table only';
comment on column patch_encoder.image_id is 'image';
comment on column patch_encoder.layer is 'vision encoder layer; 0 is the embedding''s output';
comment on column patch_encoder.patch is 'patch, as in patch_kv';
comment on column patch_encoder.feature is 'hidden state at that patch';

comment on view text_kv is 'one row per run, text, layer and KV head: key and value of the text''s last token (the text value); see how_to_read_vectors';
comment on column text_kv.run_id is 'run; a filter on it opens that run''s table only';
comment on column text_kv.text is 'category or expression, verbatim; prefilled at the beginning of a user turn, without an image';
comment on column text_kv.layer is 'language model layer, from 0';
comment on column text_kv.head is 'KV head, from 0';
comment on column text_kv.key is 'key of its last token, after the rotary embedding; null when the run stores no keys';
comment on column text_kv.value is 'value of its last token; null when the run stores no values';

comment on view text_input is 'one row per run and text: what enters the language model at the text''s last token; see how_to_read_vectors';
comment on column text_input.run_id is 'run; a filter on it opens that run''s table only';
comment on column text_input.text is 'text, as in text_kv';
comment on column text_input.feature is 'input embedding of its last token; it knows of that token only';

comment on view text_encoder is 'one row per run and text: what the text tower makes of it, of runs of a vision encoder alone; see how_to_read_vectors';
comment on column text_encoder.run_id is 'run; a filter on it opens that run''s table only';
comment on column text_encoder.text is 'text, as in text_kv; read by itself, as the text tower was trained to';
comment on column text_encoder.feature is 'vector to take dot products with patch_encoder''s, the same at every layer';

-- Someone who opens catalog.duckdb alone meets views that scan with a function of the lance extension. This view
-- stands among the tables; and DuckDB's error over the missing function ends with the name that is most like it.
create or replace view how_to_read_vectors as
select *
from (
    values
        (1, 'kvstore shell --store DIR', 'DuckDB''s shell with the vectors; DIR is the folder of catalog.duckdb'),
        (2, 'kvstore shell --store DIR --print-init > init.sql', 'the SQL that opens the vectors elsewhere'),
        (3, 'duckdb -init init.sql', 'or run its statements in any program with this version of DuckDB'),
) as steps (step, command, what);
comment on view how_to_read_vectors is 'one row per step: how to open the vectors beside this catalog, for patch_kv and other views over them';
comment on column how_to_read_vectors.step is 'order; 1 alone will do, or 2 and 3';
comment on column how_to_read_vectors.command is 'what to type';
comment on column how_to_read_vectors.what is 'what it gives';

create or replace macro "__lance_scan, of the lance extension: kvstore shell --store DIR has it (from how_to_read_vectors)"() as table
    from how_to_read_vectors;
comment on macro table "__lance_scan, of the lance extension: kvstore shell --store DIR has it (from how_to_read_vectors)" is 'what DuckDB names where the vectors were not opened';
