#!/usr/bin/env bash
# Print the path of a Chromium for the browser tests, and say on standard error which one it is: $CPIC_CHROMIUM, else the one
# on the PATH, else one from the npm registry, pinned and checked, put into .cache/chromium without any rights, else (as root)
# the one of the system's packages.
set -euo pipefail
cd "$(dirname "$0")/.."
package=@sparticuz/chromium@147.0.0
sum=18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b
home="$PWD/.cache/chromium"

found() { echo "browser: $1 ($2)" >&2; echo "$1"; exit 0; }

works() { [ -x "$1" ] && timeout 120 "$1" --version >/dev/null 2>&1; }

unpack() { # brotli: node reads it, tar does not
    node -e 'const [from, to] = process.argv.slice(1), fs = require("fs"), zlib = require("zlib");
        fs.createReadStream(from).pipe(zlib.createBrotliDecompress()).pipe(to === "-" ? process.stdout : fs.createWriteStream(to))' "$@"
}

bring() {
    local work; work="$(mktemp -d)"; trap 'rm -rf "$work"' RETURN
    (cd "$work" && npm pack --silent "$package" >/dev/null 2>&1) || return 1
    echo "$sum  $(ls "$work"/*.tgz)" | sha256sum --quiet -c - >&2 || return 1
    tar -xzf "$work"/*.tgz -C "$work"
    mkdir -p "$work/home/lib"
    unpack "$work/package/bin/chromium.br" "$work/home/chromium-bin"
    unpack "$work/package/bin/swiftshader.tar.br" - | tar -x -C "$work/home"
    unpack "$work/package/bin/fonts.tar.br" - | tar -x -C "$work/home"
    unpack "$work/package/bin/al2023.tar.br" - | tar -x -C "$work/home"
    sed -i 's|<dir>/opt/fonts</dir>|<dir prefix="relative">fonts</dir>|' "$work/home/fonts.conf"
    chmod +x "$work/home/chromium-bin"
    # Its libraries stand in only where the system lacks them, its font only where there is none.
    cat > "$work/home/chromium" <<'WRAPPER'
#!/bin/sh
here="$(dirname "$(readlink -f "$0")")"
if ldd "$here/chromium-bin" | grep -q "not found"; then export LD_LIBRARY_PATH="$here/lib"; fi
if [ -z "$(fc-list 2>/dev/null)" ]; then export FONTCONFIG_PATH="$here"; fi
exec "$here/chromium-bin" "$@"
WRAPPER
    chmod +x "$work/home/chromium"
    works "$work/home/chromium" || return 1
    rm -rf "$home"; mkdir -p .cache; mv "$work/home" "$home"
}

if [ -n "${CPIC_CHROMIUM:-}" ]; then found "$CPIC_CHROMIUM" "given by CPIC_CHROMIUM"; fi
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    path="$(command -v "$name" || true)"
    if works "$path"; then found "$path" "on the PATH"; fi
done
if works "$home/chromium" || { command -v npm >/dev/null && bring; }; then found "$home/chromium" "$package of the npm registry"; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1
    if works /usr/bin/chromium; then found /usr/bin/chromium "of the system's packages"; fi
fi
echo "The browser tests need Chromium and none could be found or fetched; install one, or set CPIC_CHROMIUM to its path." >&2
exit 1
