-- quarantine: one row per run and image that could not be stored, with the reason
select run_id, reason, name, detail, position, seen_at
from quarantine
where ($run is null or run_id = $run) and ($reason is null or reason = $reason)
order by run_id, reason, position
