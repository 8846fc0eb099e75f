-- quarantine: one row per run and reason: how many images were refused, and the first three of them
select
    run_id,
    reason,
    count(*) as images,
    array_to_string(list(name order by position)[:3], ', ') as first_files,
    first(detail order by position) as first_detail,
from quarantine
where $run is null or run_id = $run
group by run_id, reason
order by run_id, images desc, reason
