-- key_positions: one row per run, layer, head and block of positions, for the heads whose keys vary least
-- Only the run's shape of grid with the most images is used. `$heads` (6) heads are kept; positions are
-- averaged over the smallest block x block squares that leave at most `$cells` (4800) rows per run.
with grids as (
    select run_id, rows, columns, grid, first_position, row_stride
    from key_share($run)
    group by run_id, rows, columns, grid, first_position, row_stride
    qualify row_number() over (
        partition by run_id
        order by max(n) desc, grid, rows * columns desc, rows desc
    ) = 1
),

heads as (
    select run_id, rows, columns, grid, first_position, row_stride, layer, head, avg(share) as head_share
    from key_share($run)
    semi join grids using (run_id, rows, columns, grid, first_position, row_stride)
    group by run_id, rows, columns, grid, first_position, row_stride, layer, head
    qualify row_number() over (partition by run_id order by head_share, layer, head)
        <= coalesce($heads::integer, 6)
),

blocks as (
    select grids.*, min(size.range) as block
    from grids
    cross join range(1, 4001) as size
    where ceil(rows / size.range) * ceil(columns / size.range) * coalesce($heads::integer, 6)
        <= coalesce($cells::integer, 4800)
    group by all
)

select
    run_id,
    layer,
    head,
    rows,
    columns,
    (patch // columns) // block * block as row,
    (patch % columns) // block * block as "column",
    block,
    min(n) as images,
    any_value(head_share) as head_share,
    avg(share) as share,
from key_share($run)
join heads using (run_id, rows, columns, grid, first_position, row_stride, layer, head)
join blocks using (run_id, rows, columns, grid, first_position, row_stride)
group by run_id, layer, head, rows, columns, block, 6, 7
order by run_id, head_share, layer, head, row, "column"
