-- Format 2: probes have variants, named in column probe of their predictions and figures.

-- All matches so far are of the one way that there was.
alter table match add column if not exists probe varchar default 'correspondence';

-- No data set's links were followed.
alter table dataset add column if not exists follow_links boolean default false;

-- Tracking left void out; the official evaluation of DAVIS 2017, which bears the name now, counts it as background.
update mask set probe = 'tracking-void-out' where probe = 'tracking';
update score set probe = 'tracking-void-out' where probe = 'tracking';

-- Key statistics were kept by the shape of a grid and by the mosaic around it, with no word of the positions. Those that
-- can mean one thing only are kept: of all images of the run that have a grid of this shape, at the same positions.
create temp table key_stat_before as from key_stat;
drop table key_stat;
create table key_stat (
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
insert into key_stat by name
with placed as (
    select run_id, rows, columns, grid, min(first_position) as first_position, min(row_stride) as row_stride, count(*) as n
    from token_grid
    group by all
    having min(first_position) = max(first_position) and min(row_stride) = max(row_stride)
)

select before.* replace (case when n > 1 then variance end as variance), first_position, row_stride
from key_stat_before before
join placed using (run_id, rows, columns, grid, n);
drop table key_stat_before;
