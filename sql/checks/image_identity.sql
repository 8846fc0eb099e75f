-- image_identity: one row per image whose sha256 is not 64 hexadecimal digits, or that is in the store twice
select image_id, sha256
from image
where not regexp_full_match(sha256, '[0-9a-f]{64}')
    or sha256 in (select sha256 from image group by sha256 having count(*) > 1)
order by image_id
