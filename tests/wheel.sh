# Build the wheel, install it in a clean environment and use it outside the repository: sh tests/wheel.sh PYTHON
set -eu
python=$(command -v "${1:?a python with the packages build and hatchling}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

rm -f dist/kvstore-*.whl
"$python" -m build --wheel --no-isolation --outdir dist .
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --constraint constraints.txt dist/kvstore-*.whl

cd "$work"
PATH="$work/venv/bin:$PATH"
unset PYTHONPATH KVSTORE_STORE KVSTORE_RECIPES KVSTORE_DATA 2>/dev/null || true
site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for name in ingest sql reports tests; do
    test ! -e "$site/$name" || { echo "the wheel leaves $site/$name" >&2; exit 1; }
done

kvstore --help > help.txt
kvstore ls datasets | grep -q shapes
kvstore ingest shapes --limit 4 --store s
test "$(kvstore sql 'select count(distinct image_id) from patch_kv' --format csv --store s | tail -1)" = 4
kvstore report build --store s
test -s s/reports/overview.html
echo "the wheel works: $(ls "$OLDPWD"/dist/kvstore-*.whl)"
