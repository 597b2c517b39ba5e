#!/usr/bin/env bash
# Put the JavaScript that the pages and their tests need where the build finds it, from the npm registry,
# pinned and checked, so that no page asks another host for anything. Nothing is done when all of it is there.
#   book/_static/vendor/mathjax   formulas of the pages
#   .cache/axe                    accessibility rules, for the browser tests only
set -euo pipefail
cd "$(dirname "$0")/.."
sums=book/vendor_js.sha256
if [ -f "$sums" ] && sha256sum --quiet --status -c "$sums" 2>/dev/null; then exit 0; fi
command -v npm >/dev/null || { echo "vendor_js.sh needs npm (Debian: apt-get install npm), found none; install it and call again." >&2; exit 1; }

work="$(mktemp -d)"; trap 'rm -rf "$work"' EXIT
# `npm pack` fetches one tarball each and none of the dependencies.
(cd "$work" && npm pack --silent mathjax@3.2.2 axe-core@4.11.0 >/dev/null 2>&1) \
    || { echo "vendor_js.sh could not fetch mathjax and axe-core from the npm registry; check the network and call again." >&2; exit 1; }
for tarball in "$work"/*.tgz; do mkdir "${tarball%.tgz}"; tar -xzf "$tarball" -C "${tarball%.tgz}" --strip-components=1; done

out=book/_static/vendor/mathjax
rm -rf book/_static/vendor .cache/axe
mkdir -p "$out/output/chtml/fonts" "$out/input/tex" .cache/axe
cp "$work"/mathjax-*/es5/tex-mml-chtml.js "$out/"
cp -r "$work"/mathjax-*/es5/output/chtml/fonts/woff-v2 "$out/output/chtml/fonts/"
cp -r "$work"/mathjax-*/es5/input/tex/extensions "$out/input/tex/"
cp "$work"/axe-core-*/axe.min.js .cache/axe/

if [ "${1:-}" = "--record" ]; then
    find book/_static/vendor .cache/axe -type f | LC_ALL=C sort | xargs sha256sum > "$sums"
else
    sha256sum --quiet -c "$sums"
fi
