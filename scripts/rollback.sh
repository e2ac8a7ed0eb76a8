#!/bin/sh
# Roll back to a version. Without a version, list the releases that you can roll back to.
#   scripts/rollback.sh [VERSION] [--auto-confirm]
# AMANI_ENV names the environment (default: production). Equivalent to `invoke rollback`.
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
