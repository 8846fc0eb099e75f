-- Format 2: probes have variants, named in column probe of their predictions and figures.

-- All matches so far are of the one way that there was.
alter table match add column if not exists probe varchar default 'correspondence';

-- Tracking left void out; the official evaluation of DAVIS 2017, which bears the name now, counts it as background.
update mask set probe = 'tracking-void-out' where probe = 'tracking';
update score set probe = 'tracking-void-out' where probe = 'tracking';
