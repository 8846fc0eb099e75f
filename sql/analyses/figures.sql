-- figures: one row per probe and metric: its name for people, whether it is the probe's main one, what its floors are
-- What a metric counts stands at macro figure_items. `place` orders probes as the study does, and the metrics in them;
-- `items` says what n counts, `drawn` what the items' units are (macro figure_items), which the bootstrap draws; `position` and
-- `chance` say what the two floors of that name do.
select
    place,
    probe,
    metric,
    title,
    shown,
    row_number() over (partition by probe order by place) = 1 as main,
    items,
    units as drawn,
    position,
    chance,
from (
    values
    (1, 'correspondence', 'pck@0.10', 'Semantic correspondence', 'PCK@0.10', 'pairs', 'images', 'relative place', 'random patch'),
    (2, 'correspondence', 'pck@0.05', 'Semantic correspondence', 'PCK@0.05', 'pairs', 'images', 'relative place', 'random patch'),
    (3, 'correspondence', 'pck@0.15', 'Semantic correspondence', 'PCK@0.15', 'pairs', 'images', 'relative place', 'random patch'),
    (4, 'correspondence', 'pck_image@0.10', 'Semantic correspondence', 'PCK@0.10 per image', 'pairs', 'images', 'relative place', 'random patch'),
    (5, 'correspondence', 'pck_image@0.05', 'Semantic correspondence', 'PCK@0.05 per image', 'pairs', 'images', 'relative place', 'random patch'),
    (6, 'correspondence', 'pck_image@0.15', 'Semantic correspondence', 'PCK@0.15 per image', 'pairs', 'images', 'relative place', 'random patch'),
    (7, 'correspondence-bilinear', 'pck@0.10', 'Semantic correspondence, bilinear', 'PCK@0.10', 'pairs', 'images', 'relative pixel', 'random pixel'),
    (8, 'correspondence-bilinear', 'pck@0.05', 'Semantic correspondence, bilinear', 'PCK@0.05', 'pairs', 'images', 'relative pixel', 'random pixel'),
    (9, 'correspondence-bilinear', 'pck@0.15', 'Semantic correspondence, bilinear', 'PCK@0.15', 'pairs', 'images', 'relative pixel', 'random pixel'),
    (10, 'correspondence-bilinear', 'pck_image@0.10', 'Semantic correspondence, bilinear', 'PCK@0.10 per image', 'pairs', 'images', 'relative pixel', 'random pixel'),
    (11, 'correspondence-bilinear', 'pck_image@0.05', 'Semantic correspondence, bilinear', 'PCK@0.05 per image', 'pairs', 'images', 'relative pixel', 'random pixel'),
    (12, 'correspondence-bilinear', 'pck_image@0.15', 'Semantic correspondence, bilinear', 'PCK@0.15 per image', 'pairs', 'images', 'relative pixel', 'random pixel'),
    (13, 'tracking', 'jf', 'Temporal correspondence', 'J&F', 'objects of clips', 'clips', 'places', 'all'),
    (14, 'tracking', 'j', 'Temporal correspondence', 'J mean', 'objects of clips', 'clips', 'places', 'all'),
    (15, 'tracking', 'f', 'Temporal correspondence', 'F mean', 'objects of clips', 'clips', 'places', 'all'),
    (16, 'tracking-void-out', 'jf', 'Temporal correspondence, void left out', 'J&F', 'objects of clips', 'clips', 'places', 'all'),
    (17, 'tracking-void-out', 'j', 'Temporal correspondence, void left out', 'J mean', 'objects of clips', 'clips', 'places', 'all'),
    (18, 'tracking-void-out', 'f', 'Temporal correspondence, void left out', 'F mean', 'objects of clips', 'clips', 'places', 'all'),
    (19, 'fewshot-segmentation', 'miou', 'Few-shot foreground segmentation', 'mIoU', 'episodes', 'query images', 'places', 'all'),
    (20, 'fewshot-segmentation', 'fb_iou', 'Few-shot foreground segmentation', 'FB-IoU', 'episodes', 'query images', 'places', 'none'),
    (21, 'cosegmentation', 'jaccard', 'Co-segmentation', 'Jaccard', 'images', 'images', 'places', 'all'),
    (22, 'cosegmentation', 'precision', 'Co-segmentation', 'precision', 'images', 'images', 'places', 'none'),
    (23, 'semantic-segmentation', 'miou', 'Semantic segmentation', 'mIoU', 'images', 'images', 'labels', 'random label'),
    (24, 'referring', 'miou', 'Referring expressions', 'mIoU', 'expressions', 'images', 'truths', 'all'),
    (25, 'referring', 'oiou', 'Referring expressions', 'oIoU', 'expressions', 'images', 'truths', 'all'),
    (26, 'referring', 'box@0.50', 'Referring expressions', 'boxes with IoU ≥ 0.5', 'expressions', 'images', 'truths', 'all'),
    (27, 'foreground', 'iou', 'Foreground', 'IoU', 'images', 'images', 'class means', 'all patches'),
    (28, 'foreground', 'iou_image', 'Foreground', 'IoU per image', 'images', 'images', 'class means', 'all patches'),
) as named(place, probe, metric, title, shown, items, units, at_place, by_chance)
join (
    values
    ('relative place', 'the target patch at the keypoint''s own relative place'),
    ('relative pixel', 'the target pixel at the keypoint''s own relative place'),
    ('places', 'the same steps with what tells only where a patch is'),
    ('labels', 'the label that most pixels of that place have in the other half of the images'),
    ('truths', 'the mean of the true masks of the other half at each place, cut likewise; no word is read'),
    ('class means', 'the same class means of what tells only where a patch is'),
) as positions(at_place, position) using (at_place)
join (
    values
    ('random patch', 'a target patch drawn at random, exactly'),
    ('random pixel', 'a target pixel drawn at random, exactly'),
    ('all', 'every pixel taken for the object'),
    ('none', 'no pixel taken for the object'),
    ('random label', 'a label drawn at random for each pixel, on average'),
    ('all patches', 'every patch taken for foreground, the best of all blind guesses'),
) as chances(by_chance, chance) using (by_chance)
order by place
