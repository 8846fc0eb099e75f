-- text_once: one row per run, table and text that has more than one row in text_input or text_encoder
with stored as (
    select run_id, 'text_input' as "table", "text" from text_input
    union all
    select run_id, 'text_encoder', "text" from text_encoder
)

select run_id, "table", "text", count(*) as rows_stored
from stored
group by run_id, "table", "text"
having count(*) > 1
order by run_id, "table", "text"
