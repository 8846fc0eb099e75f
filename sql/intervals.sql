-- Macros of intervals: which items are independent, on which half they stand, what a figure could have been.
-- An item is what a figure counts (see figure_items); a unit is what was drawn independently: an image, a clip. The
-- `units` of an item are all that it depends on; items that share one are not independent.

-- Which half an item is on: 'chooses' finds the best layer, 'scores' makes its figure. Null where it has units on both
-- sides: it is left out, so that no unit stands on both. A unit's side is that of its hash, in every figure.
create or replace macro half_of(units) as case list_avg(list_transform(units, lambda unit: hash(unit) % 2))
    when 0 then 'chooses'
    when 1 then 'scores'
end;
comment on macro half_of is 'half_of(units): chooses or scores, null where an item has units on both halves';

-- Weight in one bootstrap resample of an item with these units: the product of the units' own weights (of two images:
-- Owen's pigeonhole bootstrap, 2007; Owen and Eckles 2012), each drawn from Poisson(1) (Chamandy et al. 2012: the
-- bootstrap's limit for many units). Made from a hash of the resample's number and the unit's, so that figures never
-- change, and all figures share their resamples.
create or replace macro resample_weight(number, units) as list_product(
    list_transform(
        list_transform(units, lambda unit: hash(xor(number * 4294967296, unit)) / 18446744073709551616.0),
        lambda p: case
            when p < 0.36787944117144233 then 0.0
            when p < 0.73575888234288464 then 1.0
            when p < 0.91969860292860580 then 2.0
            when p < 0.98101184312384620 then 3.0
            when p < 0.99634015317265630 then 4.0
            when p < 0.99940581518241830 then 5.0
            when p < 0.99991675885071200 then 6.0
            when p < 0.99998975080332540 then 7.0
            else 8.0
        end::double
    )
);
comment on macro resample_weight is 'resample_weight(number, units): weight of an item with these units in one bootstrap resample';

-- The 97.5 % quantile of Student's t (Abramowitz and Stegun 1964, 26.7.5; off by 0.001 at 4 degrees of freedom, by
-- 1.4 at 1) and the normal distribution's upper tail (26.2.17; off by less than 1e-7).
create or replace macro student(freedom) as
    1.959963985
    + 2.372271230 / freedom
    + 2.822498616 / freedom ** 2
    + 2.555849680 / freedom ** 3
    + 1.589534053 / freedom ** 4;
comment on macro student is 'student(freedom): 97.5 % quantile of Student''s t';
create or replace macro normal_tail(z) as list_transform(
    [1 / (1 + 0.2316419 * z)],
    lambda t: exp(-z * z / 2) / 2.506628274631
    * t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
)[1];
comment on macro normal_tail is 'normal_tail(z): share of a normal distribution above z, for z from 0';

-- The value at a place, from 0, of a sorted list; between two places in proportion.
create or replace macro sorted_at(sorted, place) as
    sorted[floor(place)::integer + 1]
    + (place - floor(place)) * (sorted[ceil(place)::integer + 1] - sorted[floor(place)::integer + 1]);
comment on macro sorted_at is 'sorted_at(sorted, place): the value at a place, from 0, of a sorted list';

-- One row per figure of the table named: the figure, and how far its units move it. The table has one row per figure, sign,
-- class and item, with its units, part and whole, as figure_items has: the figure is the sum of `sign` times the mean over
-- classes of sum(part) / sum(whole), so with signs 1 and -1 a difference. `n` are items, `units` units, `most` those of one
-- item. `variance` is the jackknife's: squares of what leaving out one unit changes (Efron 1982), less what items of several
-- units have put into more than one square (dyadic clusters: Fafchamps and Gubert 2007; Cameron, Gelbach and Miller 2011;
-- leaving out rather than residuals for few units: MacKinnon, Nielsen and Webb 2023). It can come out too small by chance,
-- even below 0, so half of what independent items would have is the least.
create or replace macro unit_spread(items) as table (
    with classes as (
        select figure, sign, class, sum(part) as part, sum(whole) as whole, sum(part) / nullif(sum(whole), 0) as value
        from query_table(items)
        group by figure, sign, class
    ),

    sides as (
        select figure, sign, avg(value) as value, count(value) as classes
        from classes
        group by figure, sign
    ),

    weighed as (
        select i.figure, i.sign, i.class, i.units, i.part, i.whole, c.part as parts, c.whole as wholes, s.classes
        from query_table(items) i
        join classes c on c.figure = i.figure and c.sign = i.sign and c.class = i.class
        join sides s on s.figure = i.figure and s.sign = i.sign
    ),

    without_unit as (
        select
            figure,
            unit,
            sign
            * coalesce((any_value(parts) - sum(part)) / case
                when any_value(wholes) - sum(whole) > 1e-9 * any_value(wholes) then any_value(wholes) - sum(whole)
            end - any_value(parts) / nullif(any_value(wholes), 0), 0)
            / any_value(classes) as change,
        from (select * exclude (units), unnest(units) as unit from weighed)
        group by figure, sign, class, unit
    ),

    by_unit as (
        select figure, sum(change) as change
        from without_unit
        group by figure, unit
    ),

    moved as (
        select figure, sum(change ** 2) as squares, count(*) as units
        from by_unit
        group by figure
    ),

    alike as (
        select figure, len(units) as most, sum(sign * (part - parts / wholes * whole) / wholes / classes) as pull
        from weighed
        where wholes > 0
        group by figure, units
    ),

    together as (
        select figure, sum((most - 1) * pull ** 2) as twice, sum(pull ** 2) as apart, max(most) as most
        from alike
        group by figure
    ),

    counted as (
        select figure, count(distinct item) as n
        from query_table(items)
        group by figure
    )

    select
        figure,
        sum(s.sign * s.value) as value,
        any_value(c.n)::integer as n,
        any_value(m.units)::integer as units,
        any_value(t.most)::integer as most,
        greatest(any_value(m.squares) - any_value(t.twice), any_value(t.apart) / 2) as variance,
    from sides s
    join moved m using (figure)
    join together t using (figure)
    join counted c using (figure)
    group by figure
);
comment on macro table unit_spread is 'unit_spread(items): each figure of the table named, and its variance over units';

-- One row per figure of the table named, as unit_spread has them, with its bootstrap 95 % interval over units: 1000
-- resamples, in which all figures share their weights. Ends are expanded percentiles (Hesterberg 2015, section 5.3): those
-- of the normal distribution's tail beyond sqrt(n / (n - 1)) times Student's t, with n the units. Weights that are
-- products vary more than sums of items with shared units do, up to 3 times for two units (Owen 2007): so there the
-- distances of the ends from the figure are scaled down, to where the resamples' standard deviation is unit_spread's.
-- One unit alone has no interval.
create or replace macro intervals(items) as table (
    with cells as (
        select units, row_number() over (order by units) as place
        from (select distinct units from query_table(items))
    ),

    summed as (
        select i.figure, i.sign, i.class, c.place, sum(i.part) as part, sum(i.whole) as whole
        from query_table(items) i
        join cells c using (units)
        group by i.figure, i.sign, i.class, c.place
    ),

    listed as (
        select
            figure,
            sign,
            class,
            list(part order by place) as part,
            list(whole order by place) as whole,
            list(place order by place) as places,
        from summed
        group by figure, sign, class
    ),

    supports as (
        select
            places,
            row_number() over (order by places) as support,
            len(places) = (select count(*) from cells) as dense,
        from (select distinct places from listed)
    ),

    unit_lists as (
        select support, dense, list(units order by place) as units
        from (select support, dense, unnest(places) as place from supports)
        join cells using (place)
        group by support, dense
    ),

    weights as (
        select support, dense, resample, list_transform(units, lambda cell: resample_weight(resample, cell)) as weight
        from unit_lists, range(1000) resamples(resample)
    ),

    vectors as (
        select l.figure, l.sign, l.part, l.whole, s.support, s.dense
        from listed l
        join supports s using (places)
    ),

    -- Long lists are not copied for each figure: those that have all cells meet the one list of all weights.
    weighed as (
        select figure, sign, resample, list_inner_product(part, weight) / nullif(list_inner_product(whole, weight), 0) as ratio
        from (from vectors where dense), (from weights where dense)
        union all
        select figure, sign, resample, list_inner_product(part, weight) / nullif(list_inner_product(whole, weight), 0)
        from vectors
        join weights using (support)
        where not vectors.dense
    ),

    drawn as (
        select figure, sign, resample, avg(ratio) as value
        from weighed
        group by figure, sign, resample
    ),

    resampled as (
        select figure, case when count(value) = count(*) then sum(sign * value) end as value
        from drawn
        group by figure, resample
    ),

    sorted as (
        select figure, list(value order by value) filter (value is not null) as drawn, stddev_pop(value) as spread
        from resampled
        group by figure
    ),

    ends as (
        select
            u.*,
            s.drawn,
            normal_tail(sqrt(u.units / nullif(u.units - 1, 0)) * student(nullif(u.units - 1, 0))) * (len(s.drawn) - 1) as place,
            case when u.most > 1 then least(sqrt(u.variance) / nullif(s.spread, 0), 1) else 1 end as scale,
        from unit_spread(items) u
        join sorted s using (figure)
    )

    select
        figure,
        value,
        value + scale * (sorted_at(drawn, place) - value) as low,
        value + scale * (sorted_at(drawn, len(drawn) - 1 - place) - value) as high,
        n,
        units,
    from ends
);
comment on macro table intervals is 'intervals(items): each figure of the table named, with its bootstrap 95 % interval over units';
