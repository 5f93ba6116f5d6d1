#!/bin/sh
# when_gone.sh PROCESS COMMAND   runs COMMAND in the background once PROCESS of this user has ended
# when_gone.sh --forget          drops what an earlier call asked for
#
# `ray down` on machines that stay ends Ray on the head alone. A worker's raylet notices; its log
# monitor and its agents would stay for minutes or for ever (Ray 2.60).
set -eu
kept="$HOME/.cgan-when-gone"

if [ "$1" = --forget ]; then
    pid=$(cat "$kept" 2>/dev/null || echo none)
    # Only if it is still that process: numbers are used again.
    if grep -qs when_gone "/proc/$pid/cmdline"; then kill "$pid"; fi
    rm -f "$kept"
    exit
fi

watched=$(pgrep -n -u "$(id -u)" -x "$1")
# shellcheck disable=SC2016 # expanded by the inner shell
setsid sh -c 'tail --pid="$1" -f /dev/null; rm -f "$2"; eval "$3"' \
    when_gone "$watched" "$kept" "$2" </dev/null >>"$HOME/when-gone.log" 2>&1 &
echo $! >"$kept"
