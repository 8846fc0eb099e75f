-- encoder_gaps: one row per (run, probe, metric, reference): best image value minus input or a vision encoder, held out
-- Both are the best layer and head of their site on the items that macro half_of puts on the half that chooses, and are
-- compared on the items of the other half that both have: `value`, `reference` and their `difference`, with a bootstrap
-- 95 % interval over the `units` units of these n items, the same resamples for both (macro intervals). `left_out` counts
-- items that both have and that are on neither half. References are the run's own input and encoder (where it has none,
-- that of another run of its model), and vision encoders that have no language model, over the same data set. What a
-- figure, its classes, its items and their units are stands at macro figure_items.
with halved as (
    select
        i.*,
        r.dataset_id,
        r.model_id,
        m.layers = 0 as alone,
        half_of(units) as half,
    from figure_items(null, $probe) i
    join run r using (run_id)
    join model m using (model_id)
    where
        site in ('value', 'input', 'encoder')
        and ($dataset is null or r.dataset_id = $dataset)
),

choosing as (
    select
        dataset_id,
        model_id,
        alone,
        run_id,
        probe,
        metric,
        site,
        layer,
        head,
        class,
        sum(part) / nullif(sum(whole), 0) as chosen_on,
    from halved
    where half = 'chooses'
    group by all
),

best as (
    select dataset_id, model_id, alone, run_id, probe, metric, site, layer, head
    from choosing
    group by dataset_id, model_id, alone, run_id, probe, metric, site, layer, head
    qualify row_number() over (
        partition by run_id, probe, metric, site
        order by avg(chosen_on) desc nulls last, layer, head nulls last
    ) = 1
),

-- Each comparison has two sides, which share all that names the comparison.
compared as (
    select
        v.dataset_id,
        v.run_id,
        v.probe,
        v.metric,
        v.layer,
        v.head,
        e.run_id as reference_run,
        e.site as reference_site,
        e.layer as reference_layer,
        unnest([
            {'sign': 1, 'of_run': v.run_id, 'of_site': v.site, 'of_layer': v.layer, 'of_head': v.head},
            {'sign': -1, 'of_run': e.run_id, 'of_site': e.site, 'of_layer': e.layer, 'of_head': e.head}
        ], recursive := true),
    from best v
    join best e
        on e.dataset_id = v.dataset_id
        and e.probe = v.probe
        and e.metric = v.metric
    where
        v.site = 'value'
        and e.site <> 'value'
        and (
            e.run_id = v.run_id
            or e.site = 'encoder' and e.alone
            or e.site = 'encoder'
            and e.model_id = v.model_id
            and not exists (
                from best own
                where
                    own.run_id = v.run_id
                    and own.probe = v.probe
                    and own.metric = v.metric
                    and own.site = 'encoder'
            )
        )
),

shared as (
    select
        {
            'dataset': c.dataset_id,
            'probe': c.probe,
            'metric': c.metric,
            'run_id': c.run_id,
            'layer': c.layer,
            'head': c.head,
            'reference_run': c.reference_run,
            'reference_site': c.reference_site,
            'reference_layer': c.reference_layer
        } as figure,
        c.sign,
        i.class,
        i.item,
        i.units,
        i.part,
        i.whole,
        i.half,
    from compared c
    join halved i
        on i.run_id = c.of_run
        and i.probe = c.probe
        and i.metric = c.metric
        and i.site = c.of_site
        and i.layer = c.of_layer
        and i.head is not distinct from c.of_head
    qualify count(distinct c.sign) over (partition by figure, i.item) = 2
),

left_out as (
    select figure, count(distinct item) filter (half is null)::integer as left_out
    from shared
    group by figure
),

items as (
    select * exclude (half)
    from shared
    where half = 'scores'
),

sides as (
    select figure, sign, sum(part) / nullif(sum(whole), 0) as value
    from items
    group by figure, sign, class
),

averaged as (
    select figure, avg(value) filter (sign = 1) as value, avg(value) filter (sign = -1) as reference
    from sides
    group by figure
)

select
    unnest(i.figure),
    averaged.value,
    averaged.reference,
    i.value as difference,
    i.low,
    i.high,
    i.n,
    i.units,
    l.left_out,
from intervals('items') i
join averaged using (figure)
join left_out l using (figure)
order by all
