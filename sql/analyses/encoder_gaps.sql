-- encoder_gaps: one row per (run, probe, metric, reference): best image value minus input or a vision encoder, held out
-- Both are the best layer and head of their site on the items with an even hash, and are compared on the other items that
-- both have: `value`, `reference` and their `difference`, with a bootstrap 95 % interval over those n items, the same
-- resamples for both (macro poisson_weights, 1000 of them). References are the run's own input and encoder (where it has
-- none, that of another run of its model), and vision encoders that have no language model, over the same data set. What a
-- figure, its classes and its items are stands at macro figure_items.
with items as (
    select
        i.*,
        r.dataset_id,
        r.model_id,
        m.layers = 0 as alone,
        hash(item) % 2 = 0 as chooses,
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
    from items
    where chooses
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
            {'side': 'value', 'of_run': v.run_id, 'of_site': v.site, 'of_layer': v.layer, 'of_head': v.head},
            {'side': 'reference', 'of_run': e.run_id, 'of_site': e.site, 'of_layer': e.layer, 'of_head': e.head}
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

scored as (
    select
        c.* exclude (of_run, of_site, of_layer, of_head),
        i.class,
        i.item,
        i.part,
        i.whole,
    from compared c
    join items i
        on i.run_id = c.of_run
        and i.probe = c.probe
        and i.metric = c.metric
        and i.site = c.of_site
        and i.layer = c.of_layer
        and i.head is not distinct from c.of_head
        and not i.chooses
    qualify count(distinct c.side) over (
        partition by c.run_id, c.probe, c.metric, c.reference_run, c.reference_site, i.item
    ) = 2
),

placed as (
    select
        *,
        dense_rank() over (partition by run_id, probe, metric, reference_run, reference_site order by item) as place,
    from scored
),

listed as (
    select
        * exclude (item, part, whole, place),
        list(part order by place) as part,
        list(whole order by place) as whole,
        list(place order by place) as places,
        max(place) as last,
        sum(part) / nullif(sum(whole), 0) as figure,
    from placed
    group by all
),

weights as (
    select resample, poisson_weights(resample, most) as weight
    from range(1000) as resamples(resample), (select max(last) as most from listed)
),

drawn as (
    select
        listed.* exclude (part, whole, places),
        resample,
        list_inner_product(part, list_select(weight, places))
        / nullif(list_inner_product(whole, list_select(weight, places)), 0) as drawn,
    from listed, weights
),

figures as (
    select
        * exclude (class, last, figure, drawn),
        max(last) as n,
        avg(figure) as figure,
        avg(drawn) as drawn,
    from drawn
    group by all
),

resampled as (
    select
        * exclude (side, n, figure, drawn),
        max(n) as n,
        max(figure) filter (side = 'value') as value,
        max(figure) filter (side = 'reference') as reference,
        max(drawn) filter (side = 'value') - max(drawn) filter (side = 'reference') as resampled,
    from figures
    group by all
)

select
    dataset_id as dataset,
    probe,
    metric,
    run_id,
    layer,
    head,
    reference_run,
    reference_site,
    reference_layer,
    value,
    reference,
    value - reference as difference,
    quantile_cont(resampled, 0.025) as low,
    quantile_cont(resampled, 0.975) as high,
    n,
from resampled
group by all
order by dataset, probe, metric, run_id, reference_run, reference_site
