#!/bin/sh
# Roll back: without a version, list what can be rolled back to.
#   scripts/rollback.sh [VERSION] [--auto-confirm]
# AMANI_ENV names the environment (production by default). The same as `invoke rollback`.
set -eu
root=$(dirname -- "$(readlink -f -- "$0")")/..
version=""
case "${1:-}" in
-* | "") ;;
*)
    version=$1
    shift
    ;;
esac
exec "$root/inv" rollback ${version:+"--version=$version"} "$@"
