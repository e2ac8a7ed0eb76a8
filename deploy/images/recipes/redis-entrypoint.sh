#!/bin/sh
# As the official image: runs as redis in /data, reachable from its network.
set -eu

case "${1:-redis-server}" in
-* | *.conf) set -- redis-server "$@" ;;
esac
[ "$#" -gt 0 ] || set -- redis-server
if [ "$1" = redis-server ]; then
    set -- "$@" --protected-mode no --bind '*' '-::*'
    if [ "$(id -u)" = 0 ]; then
        chown redis:redis .
        exec setpriv --reuid=redis --regid=redis --init-groups -- "$@"
    fi
fi
exec "$@"
