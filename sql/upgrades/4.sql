-- Format 4: a data set that is one file of annotations says which.
alter table dataset add column if not exists annotations varchar;

-- Stores made while format 2 was new may lack what it brought.
alter table dataset add column if not exists follow_links boolean default false;
