# The whole job on drawn scenes, with the built-in models: `make demo`, or sh tests/demo.sh FOLDER.
set -eu
store=${1:?a folder for the store}/store

step() {
    echo
    echo "== $1"
    shift
    echo "\$ $*"
    "$@"
}

rm -rf "$store"
step "prefill 60 scenes with a trained LLaVA-OneVision and store their keys and values" \
    kvstore ingest shapes --model tiny-onevision --limit 60 --run trained --store "$store"
step "the same with its untrained twin: a floor of every curve" \
    kvstore ingest shapes --model tiny-onevision-untrained --limit 60 --run untrained --store "$store"
step "a Qwen2.5-VL, which cuts an image into other patches" \
    kvstore ingest shapes --model tiny-qwen --limit 20 --run qwen --store "$store"
for run in trained untrained; do
    step "match keypoints to their nearest patches; PCK of each site's best layer and head" \
        kvstore probe correspondence --run "$run" --store "$store"
    step "tell foreground from background by the nearest class mean" \
        kvstore probe foreground --run "$run" --store "$store"
done
step "the vision encoder alone, as it was before it was part of a language model" \
    kvstore ingest shapes --model tiny-encoder --limit 60 --run encoder --store "$store"
for probe in correspondence foreground; do
    step "the same probe of the encoder" kvstore probe "$probe" --run encoder --store "$store"
done
for probe in semantic-segmentation referring cosegmentation; do
    step "$probe, at two layers" \
        kvstore probe "$probe" --run trained --site value,input --layers 0,2 --store "$store"
done
step "1000 episodes of segmenting by five examples, at one layer" \
    kvstore probe fewshot-segmentation --run trained --site value --layers 2 --store "$store"
step "videos: objects that move, cross and deform" \
    kvstore ingest shapes --split clips --model tiny-onevision --limit 32 --run clips --store "$store"
step "follow each object from its first frame on" \
    kvstore probe tracking --run clips --site value,input --layers 0,2,4,6 --store "$store"
step "ask the model the scenes' questions: by greedy generation and by answer likelihood" \
    kvstore eval shapes-qa --run trained --store "$store"
for at in 00150 01500 03000; do
    step "a checkpoint of its training: one layer stored, all questions asked" \
        kvstore ingest shapes --model "tiny-onevision-step-$at" --limit 60 --layers 5 --sites value \
        --run "step-$at" --store "$store"
    step "its answers" kvstore eval shapes-qa --run "step-$at" --method greedy --store "$store"
done
step "ask the store in SQL" \
    kvstore sql "select run_id, layer, count(*) as vectors from patch_kv group by all order by all" \
    --store "$store"
step "prove that the store is sound: each check finds no row" kvstore check --store "$store"
step "build the reports; their pages:" kvstore report build --store "$store"
