# The whole job on drawn scenes, with untrained tiny models: `make demo`, or sh tests/demo.sh FOLDER.
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
step "prefill 60 scenes with a LLaVA-OneVision and store their keys and values" \
    kvstore ingest shapes --model tiny-onevision --limit 60 --run onevision --store "$store"
step "the same of 20 scenes with a Qwen2.5-VL, which cuts an image into other patches" \
    kvstore ingest shapes --model tiny-qwen --limit 20 --run qwen --store "$store"
for run in onevision qwen; do
    step "match keypoints to their nearest patches; PCK of each site's best layer and head" \
        kvstore probe correspondence --run "$run" --store "$store"
done
step "ask the store in SQL" \
    kvstore sql "select run_id, layer, count(*) as vectors from patch_kv group by all order by all" \
    --store "$store"
step "prove that the store is sound: each check finds no row" kvstore check --store "$store"
step "build the reports; their pages:" kvstore report build --store "$store"
